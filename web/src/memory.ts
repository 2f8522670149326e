/** Choices that outlive the page, where the browser allows it; nothing depends on them. */

export function remembered(key: string, otherwise: boolean): boolean {
  try {
    const kept = localStorage.getItem(key);
    return kept === null ? otherwise : kept === "shown";
  } catch {
    return otherwise;
  }
}

export function remember(key: string, shown: boolean): void {
  try {
    localStorage.setItem(key, shown ? "shown" : "hidden");
  } catch {
    // A browser without storage forgets.
  }
}
