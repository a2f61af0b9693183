// Lets the search of the site run when its pages are opened as files: browsers start no workers for them.
// The worker's script runs in a hidden frame instead. On a server, nothing here is used.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.onmessage = this.onerror = null;
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      this.inner = this.frame.contentWindow;
      this.inner.postMessage = (data) => setTimeout(() => this.onmessage?.({ data }));
      const script = this.inner.document.createElement("script");
      script.src = new URL(url, location.href).href;
      script.onload = () => this.flush();
      script.onerror = (event) => this.onerror?.(event);
      this.inner.document.body.append(script);
    }

    postMessage(data) {
      this.waiting.push(data);
      if (this.ready) this.flush();
    }

    flush() {
      this.ready = true;
      for (const data of this.waiting.splice(0)) {
        setTimeout(() => this.inner.dispatchEvent(new this.inner.MessageEvent("message", { data })));
      }
    }

    terminate() {
      this.frame.remove();
    }
  };
}
