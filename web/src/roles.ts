/** What people may do. Pure. */

import type { Role } from "./me";

/** Each may what those before it may. */
export const ROLES: readonly { id: Role; label: string; hint: string }[] = [
  { id: "viewer", label: "Viewer", hint: "Watches; also private channels, if let in." },
  { id: "producer", label: "Producer", hint: "Adds channels, and manages its own." },
  { id: "operator", label: "Operator", hint: "Manages everything but people." },
  { id: "admin", label: "Admin", hint: "Manages everything." },
];

/** A role that a newer director may know and this page does not is shown as it is. */
export function roleLabel(role: string): string {
  return ROLES.find(({ id }) => id === role)?.label ?? role;
}

/** The roles that a token of somebody's may have, the least first: the one to begin with. */
export function rolesUpTo(role: Role): Role[] {
  const last = ROLES.findIndex(({ id }) => id === role);
  return ROLES.slice(0, last + 1).map(({ id }) => id);
}
