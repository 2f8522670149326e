/** Reads the Link header field (RFC 8288) of a WHEP answer. Pure. */

/** Where a channel is changed over the connection that there is; see docs/protocols/whep.md. */
export const CHANGE = "urn:anabranch:whep:ext:change";
/** Where a seat's event stream is asked for (the draft's Core Extensions). */
export const EVENTS = "urn:ietf:params:whep:ext:core:server-sent-events";

/** The target of the first link with this relation type, as written; null where there is none. */
export function linkTo(header: string | null, relation: string): string | null {
  // A link's parameters may hold commas and semicolons, but only in quotes.
  const links = header?.matchAll(/<([^>]*)>((?:[^",]|"[^"]*")*)/g) ?? [];
  for (const [, target = "", parameters = ""] of links) {
    for (const [, name, quoted, plain] of parameters.matchAll(/;\s*([^\s=;]+)\s*=\s*(?:"([^"]*)"|([^\s;]*))/g)) {
      if (name?.toLowerCase() !== "rel") continue;
      if ((quoted ?? plain ?? "").split(/\s+/).includes(relation)) return target;
    }
  }
  return null;
}
