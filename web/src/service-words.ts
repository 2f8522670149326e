/** What the page /services says of nodes, modules and users. Pure. */

export interface Module {
  user: string;
  name: string;
  filter: string | null;
  expires_s: number;
  state: string;
  figures: Record<string, string>;
}

export interface ServiceNode {
  name: string;
  address: string | null;
  answers: boolean;
  restarts: number;
  sessions: number;
  modules: Module[];
}

export interface ServiceUser {
  name: string;
  address: string | null;
  address6: string | null;
  listen_ports: string[];
  filter_prefixes: string[];
  in_file: boolean;
}

const counted = (count: number, one: string, many: string): string => `${count} ${count === 1 ? one : many}`;

export function summaryWords(nodes: readonly ServiceNode[]): string {
  const modules = nodes.reduce((sum, node) => sum + node.modules.length, 0);
  const away = nodes.filter(({ answers }) => !answers).length;
  const words = `${counted(nodes.length, "node", "nodes")} · ${counted(modules, "module", "modules")}`;
  return away === 0 ? words : `${words} · ${away} away`;
}

export function nodeWords(node: ServiceNode): string {
  const words = [node.address ?? "no address", counted(node.sessions, "session", "sessions")];
  if (node.restarts > 0) words.push(counted(node.restarts, "restart", "restarts"));
  return words.join(" · ");
}

/** How long a module stays, unless it is renewed. */
export function expiryWords(seconds: number): string {
  if (seconds < 60) return `${seconds} s left`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min left`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h left`;
  return `${Math.floor(seconds / 86400)} days left`;
}

/** How many packets a module was given, so that it can be read at a glance. */
export function packetWords(module: Module): string {
  const packets = Number(module.figures["packets"] ?? 0);
  return `${Number.isFinite(packets) ? packets.toLocaleString("en") : "?"} ${packets === 1 ? "packet" : "packets"}`;
}

export function userWords(user: ServiceUser): string {
  const words: string[] = [];
  const addresses = [user.address, user.address6].filter((each) => each !== null);
  words.push(addresses.length === 0 ? "no address" : addresses.join(", "));
  if (user.listen_ports.length > 0) words.push(`ports ${user.listen_ports.join(", ")}`);
  words.push(user.filter_prefixes.length === 0 ? "claims by proof alone" : `claims ${user.filter_prefixes.join(", ")}`);
  return words.join(" · ");
}

export function modulePath(node: string, module: Module): string {
  return `/api/services/nodes/${[node, "modules", module.user, module.name].map(encodeURIComponent).join("/")}`;
}
