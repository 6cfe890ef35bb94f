/**
 * The paths of the distribution API. Read from the end, because repository names may contain "blobs", "tags" and the like. Each segment is
 * decoded exactly once; a slash that appears only then is not a separator but an invalid name.
 */
import { SlipwayError } from "../../../src/core/errors.ts";
import { parseRepositoryName } from "../../../src/oci/names.ts";

export type RouteKind = "base" | "catalog" | "manifest" | "blob" | "uploads" | "upload" | "tags" | "referrers";

export interface Route {
  readonly kind: RouteKind;
  /** The name as the client wrote it, which scopes, Locations and Links repeat; empty for base and catalog. */
  readonly requested: string;
  /** The full name: project, slash, path. */
  readonly repository: string;
  /** Tag, digest or upload id; not checked yet. */
  readonly reference: string;
  /** What follows the question mark. */
  readonly search: string;
}

/** Longer targets are refused before anything else looks at them. */
const MAX_TARGET_LENGTH = 16 * 1024;

/** Throws NAME_INVALID, NAME_UNKNOWN for a path that is none of ours, URI_TOO_LONG. */
export function parseRoute(url: string): Route {
  if (url.length > MAX_TARGET_LENGTH) throw new SlipwayError("URI_TOO_LONG");
  const target = originForm(url);
  const mark = target.indexOf("?");
  const path = mark < 0 ? target : target.slice(0, mark);
  const search = mark < 0 ? "" : target.slice(mark + 1);
  if (path === "/v2/" || path === "/v2") return { kind: "base", requested: "", repository: "", reference: "", search };
  if (!path.startsWith("/v2/")) throw unknownPath();
  const segments = path.slice(4).split("/");
  if (segments.length === 1 && segments[0] === "_catalog") {
    return { kind: "catalog", requested: "", repository: "", reference: "", search };
  }
  const split = splitAtVerb(segments);
  if (!split) throw unknownPath();
  const requested = decodeName(segments.slice(0, split.nameLength));
  const name = parseRepositoryName(requested);
  if (!name) throw new SlipwayError("NAME_INVALID");
  return { kind: split.kind, requested, repository: name.name, reference: decode(split.reference) ?? "", search };
}

interface Split {
  readonly kind: RouteKind;
  readonly nameLength: number;
  readonly reference: string;
}

function splitAtVerb(segments: readonly string[]): Split | null {
  const count = segments.length;
  const last = segments[count - 1] ?? "";
  const verb = segments[count - 2];
  const before = segments[count - 3];
  if (count < 3) return null;
  if (verb === "tags" && last === "list") return { kind: "tags", nameLength: count - 2, reference: "" };
  if (verb === "uploads" && before === "blobs" && count > 3) {
    return { kind: last === "" ? "uploads" : "upload", nameLength: count - 3, reference: last };
  }
  if (verb === "blobs") {
    return { kind: last === "uploads" ? "uploads" : "blob", nameLength: count - 2, reference: last === "uploads" ? "" : last };
  }
  if (verb === "manifests") return { kind: "manifest", nameLength: count - 2, reference: last };
  if (verb === "referrers") return { kind: "referrers", nameLength: count - 2, reference: last };
  return null;
}

function decodeName(segments: readonly string[]): string {
  return segments
    .map((segment) => {
      const decoded = decode(segment);
      if (decoded === null || decoded.includes("/")) throw new SlipwayError("NAME_INVALID");
      return decoded;
    })
    .join("/");
}

function decode(segment: string): string | null {
  if (!segment.includes("%")) return segment;
  try {
    return decodeURIComponent(segment);
  } catch {
    return null;
  }
}

/** Proxies may send the absolute form. */
function originForm(url: string): string {
  if (url.startsWith("/")) return url;
  const scheme = /^https?:\/\/[^/?#]*/i.exec(url);
  if (!scheme) throw unknownPath();
  return url.slice(scheme[0].length) || "/";
}

function unknownPath(): SlipwayError {
  return new SlipwayError("NAME_UNKNOWN", { message: "no such path in the distribution API" });
}
