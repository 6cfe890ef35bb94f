/** Finds the imports of a source file: what it names and whether only for types. */
export interface Import {
  readonly specifier: string;
  readonly line: number;
  /** Erased before the program runs. */
  readonly typeOnly: boolean;
}

const STATEMENT = /^[ \t]*(import|export)\s+(type\s+)?((?:[^;"'`]*?\bfrom\s*)?)(["'])([^"'\n]+)\4/gm;
const DYNAMIC = /\bimport\(\s*(["'`])([^"'`\n]+)\1\s*\)/g;
const TYPE_QUERY = /\btypeof\s+import\(\s*(["'])([^"'\n]+)\1\s*\)|[:<|&,=]\s*import\(\s*(["'])([^"'\n]+)\3\s*\)\.[A-Z]/g;

export function findImports(source: string): Import[] {
  const text = withoutComments(source);
  const found: Import[] = [];
  for (const match of text.matchAll(STATEMENT)) {
    const [, keyword, type, clause, , specifier] = match;
    if (specifier === undefined) continue;
    // `export "x"` is no statement of the language; a bare `import "x"` is.
    if (keyword === "export" && !clause) continue;
    found.push({
      specifier,
      line: lineOf(text, match.index + leadingBlank(match[0])),
      typeOnly: type !== undefined || isTypeClause(clause ?? ""),
    });
  }
  const typeQueries = new Set([...text.matchAll(TYPE_QUERY)].map((match) => match.index + match[0].indexOf("import(")));
  for (const match of text.matchAll(DYNAMIC)) {
    const specifier = match[2];
    if (specifier !== undefined) found.push({ specifier, line: lineOf(text, match.index), typeOnly: typeQueries.has(match.index) });
  }
  return found;
}

/** `{ type A, type B } from`: nothing of it is left at run time but the import itself, which has no name. */
function isTypeClause(clause: string): boolean {
  const names = /^\{([^}]*)\}/.exec(clause.trim())?.[1];
  if (names === undefined) return false;
  const parts = names.split(",").filter((part) => part.trim() !== "");
  return parts.length > 0 && parts.every((part) => /^\s*type\s/.test(part));
}

/** Comments become blanks, so that places keep their line. Strings are stepped over, since they may hold the marks of comments. */
export function withoutComments(source: string): string {
  const token = /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g;
  return source.replace(token, (found) => (found.startsWith("/") ? found.replace(/[^\n]/g, " ") : found));
}

function leadingBlank(text: string): number {
  return text.length - text.trimStart().length;
}

function lineOf(text: string, index: number): number {
  let line = 1;
  for (let at = text.indexOf("\n"); at !== -1 && at < index; at = text.indexOf("\n", at + 1)) line += 1;
  return line;
}
