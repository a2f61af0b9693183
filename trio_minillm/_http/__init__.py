"""HTTP/1.1 on Trio, and the seam to httpx."""
