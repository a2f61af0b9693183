"""The first bytes of files that messages carry, and their base64."""

import base64

PNG = b"\x89PNG\r\n\x1a\n0000"
PNG64 = base64.b64encode(PNG).decode()
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt "
WAV64 = base64.b64encode(WAV).decode()
PDF = b"%PDF-1.7 ..."
PDF64 = base64.b64encode(PDF).decode()
