// Takes every address out of package-lock.json. npm copies the "funding" links of each package into
// the lock; they are of no use to an installation, and the lock of this project names no host.
import { readFileSync, writeFileSync } from "node:fs";

const path = new URL("../package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(path, "utf8"));
for (const entry of Object.values(lock.packages)) {
  delete entry.funding;
  delete entry.deprecated;
  delete entry.resolved;
}
const text = JSON.stringify(lock, null, 2) + "\n";
if (/https?:/.test(text)) throw new Error("package-lock.json still names an address");
writeFileSync(path, text);
