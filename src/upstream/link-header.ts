/** The `rel="next"` target of Link headers; commas and semicolons inside <> and quotes belong to their part. */

export function parseNextLink(headers: string | readonly string[] | undefined): string | null {
  if (headers === undefined) return null;
  for (const header of typeof headers === "string" ? [headers] : headers) {
    for (const match of header.matchAll(/<([^>]*)>((?:\s*;\s*[^\s=;,]+\s*(?:=\s*(?:"[^"]*"|[^";,]*))?)*)/g)) {
      const rel = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s";,]+))/i.exec(match[2] ?? "");
      const relations = (rel?.[1] ?? rel?.[2] ?? "").toLowerCase().split(/\s+/);
      if (relations.includes("next") && match[1]) return match[1];
    }
  }
  return null;
}
