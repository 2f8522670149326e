/** The director's events, as a hint that the list of channels has changed. */

const DEBOUNCE_MS = 200;
const RETRY_MS = 2000;

export function concernsList(data: string): boolean {
  try {
    const { kind } = JSON.parse(data) as { kind?: unknown };
    return typeof kind === "string" && (kind.startsWith("channel.") || kind.startsWith("seat."));
  } catch {
    return false;
  }
}

/** Calls `changed` (debounced) after events and after each connection; only while the page is seen. */
export function followEvents(changed: () => void): void {
  let source: EventSource | null = null;
  let pending = 0;
  let retry = 0;

  const soon = () => {
    // Not restarted by later events: under a steady stream of them the list must still move.
    pending ||= setTimeout(() => {
      pending = 0;
      changed();
    }, DEBOUNCE_MS);
  };
  const close = () => {
    clearTimeout(retry);
    source?.close();
    source = null;
  };
  let first = true;
  const open = () => {
    close();
    source = new EventSource("/api/events");
    source.onopen = () => {
      // The list was just fetched when the page opened; after a gap it has to be fetched again.
      if (!first) soon();
      first = false;
    };
    source.onmessage = (event: MessageEvent<string>) => {
      if (concernsList(event.data)) soon();
    };
    source.onerror = () => {
      first = false;
      soon();
      // The browser itself retries a broken connection, but not an answer other than 200.
      if (source?.readyState === EventSource.CLOSED) {
        close();
        retry = setTimeout(open, RETRY_MS);
      }
    };
  };
  document.addEventListener("visibilitychange", () => {
    // Hidden pages give their connection back: browsers allow only six to a server.
    if (document.hidden) return close();
    first = false;
    open();
    soon();
  });
  if (!document.hidden) open();
}
