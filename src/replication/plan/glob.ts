/**
 * Patterns over names and tags, as clients know them from doublestar: `*` within a path element, `**` as a whole element over elements, `?`,
 * `[a-z]`, `[^x]`, `{a,b}` (also over elements, and nested) and `\` before what is meant as it stands. Braces are resolved when a pattern is
 * compiled; matching then takes time in proportion to pattern times name, whatever the pattern is. Unlike doublestar, a star may be followed by
 * what can be empty: `v*{,-slim}` matches `v1`.
 */
import { SlipwayError } from "../../core/errors.ts";

export interface Glob {
  matches(name: string): boolean;
  /** The only names that it matches; null when there are others. */
  readonly literals: readonly string[] | null;
  /** The first path elements of what it matches; null: any. */
  readonly namespaces: readonly string[] | null;
}

type Token =
  | { readonly kind: "char"; readonly char: string }
  | { readonly kind: "one" }
  | { readonly kind: "many" }
  | { readonly kind: "class"; readonly negated: boolean; readonly ranges: readonly (readonly [low: number, high: number])[] };

/** A path element; "over" is `**`, which takes any number of elements. */
type Element = "over" | readonly Token[];

const MAX_LENGTH = 1024;
const MAX_ALTERNATIVES = 1000;
/** Stands where a brace opened: `**` behind it is no element of its own, as in doublestar. */
const OPENED = "\u0000";

const EVERYTHING: Glob = { matches: () => true, literals: null, namespaces: null };

/** Throws BAD_REQUEST for what is no pattern. The empty one matches everything. */
export function compileGlob(pattern: string): Glob {
  if (pattern === "") return EVERYTHING;
  if (pattern.length > MAX_LENGTH) throw invalid(pattern, `it has more than ${MAX_LENGTH} characters`);
  if (pattern.includes(OPENED)) throw invalid(pattern, "it has a NUL character");
  const alternatives = new Alternatives(pattern).all().map((text) => readElements(pattern, text));
  const texts = alternatives.map(textOf);
  const literals = new Set(texts.filter((text) => text !== null));
  const others = alternatives.filter((_, index) => texts[index] === null).map(endingInOne);
  return {
    matches: (name) => literals.has(name) || others.some((elements) => matchElements(elements, name.split("/"))),
    literals: others.length === 0 ? [...literals] : null,
    namespaces: firstElements(alternatives),
  };
}

/** Braces, written out. */
class Alternatives {
  readonly #pattern: string;
  readonly #found: string[] = [];

  constructor(pattern: string) {
    this.#pattern = pattern;
  }

  all(): string[] {
    this.#expand(this.#pattern, 0);
    return this.#found;
  }

  #expand(text: string, from: number): void {
    for (let index = from; index < text.length; index += 1) {
      const char = text[index];
      if (char === "\\") index += 1;
      else if (char === "[") {
        index = endOfClass(text, index);
        if (index < 0) throw invalid(this.#pattern, "a [ is not closed");
      } else if (char === "{") {
        const { options, end } = this.#options(text, index);
        const before = text.slice(0, index) + OPENED;
        for (const option of options) this.#expand(before + option + text.slice(end), before.length);
        return;
      }
    }
    if (this.#found.push(text) > MAX_ALTERNATIVES) throw invalid(this.#pattern, `it has more than ${MAX_ALTERNATIVES} alternatives`);
  }

  /** The alternatives of the brace at `start`, and where the text goes on behind it. */
  #options(text: string, start: number): { options: string[]; end: number } {
    const options: string[] = [];
    let depth = 0;
    let begin = start + 1;
    for (let index = begin; index < text.length; index += 1) {
      const char = text[index];
      if (char === "\\") index += 1;
      else if (char === "{") depth += 1;
      else if (char === "," && depth === 0) {
        options.push(text.slice(begin, index));
        begin = index + 1;
      } else if (char === "}") {
        if (depth === 0) return { options: [...options, text.slice(begin, index)], end: index + 1 };
        depth -= 1;
      }
    }
    throw invalid(this.#pattern, "a { is not closed");
  }
}

function readElements(pattern: string, text: string): Element[] {
  const elements: Element[] = [];
  let tokens: Token[] = [];
  let start = 0;
  const finish = (end: number): void => {
    elements.push(text.slice(start, end) === "**" ? "over" : tokens);
    tokens = [];
    start = end + 1;
  };
  for (let index = 0; index < text.length;) {
    const char = String.fromCodePoint(text.codePointAt(index) ?? 0);
    if (char === "/") finish(index);
    else if (char === "*") tokens.push({ kind: "many" });
    else if (char === "?") tokens.push({ kind: "one" });
    else if (char === "[") {
      const end = endOfClass(text, index);
      tokens.push(readClass(pattern, text.slice(index + 1, end)));
      index = end;
    } else if (char === "\\") {
      index += 1;
      const escaped = text.codePointAt(index);
      if (escaped === undefined) throw invalid(pattern, "nothing follows the last \\");
      tokens.push({ kind: "char", char: String.fromCodePoint(escaped) });
      index += String.fromCodePoint(escaped).length - 1;
    } else if (char !== OPENED) tokens.push({ kind: "char", char });
    index += char.length;
  }
  finish(text.length);
  return elements;
}

/** -1 when it is not closed. */
function endOfClass(text: string, start: number): number {
  for (let index = start + 1; index < text.length; index += 1) {
    if (text[index] === "]" && text[index - 1] !== "\\") return index;
  }
  return -1;
}

function readClass(pattern: string, body: string): Token {
  const chars = Array.from(body).filter((char) => char !== OPENED);
  if (chars.length === 0) throw invalid(pattern, "a class is empty");
  const negated = chars[0] === "^";
  const ranges: [number, number][] = [];
  let index = negated ? 1 : 0;
  const next = (): number => {
    let char = chars[index++];
    if (char === "-" || char === undefined) throw invalid(pattern, "a class has a - without both ends");
    if (char === "\\") char = chars[index++];
    if (char === undefined) throw invalid(pattern, "nothing follows the last \\ of a class");
    return char.codePointAt(0) ?? 0;
  };
  while (index < chars.length) {
    const low = next();
    let high = low;
    if (chars[index] === "-") {
      index += 1;
      high = next();
    }
    ranges.push([low, high]);
  }
  return { kind: "class", negated, ranges };
}

/** What it stands for when it has no wildcard. */
function textOf(elements: readonly Element[]): string | null {
  const texts = elements.map(elementText);
  return texts.every((text) => text !== null) ? texts.join("/") : null;
}

function elementText(element: Element): string | null {
  if (element === "over") return null;
  let text = "";
  for (const token of element) {
    // An escaped slash separates nothing, so that no name has it.
    if (token.kind !== "char" || token.char === "/") return null;
    text += token.char;
  }
  return text;
}

function firstElements(alternatives: readonly (readonly Element[])[]): string[] | null {
  const first = alternatives.map((elements) => elementText(elements[0] ?? "over"));
  return first.every((text) => text !== null) ? [...new Set(first)] : null;
}

/** `a/**` does not match `a`: the last `**` takes one element at least. */
function endingInOne(elements: readonly Element[]): readonly Element[] {
  return elements.at(-1) === "over" ? [...elements, [{ kind: "many" }]] : elements;
}

function matchElements(elements: readonly Element[], names: readonly string[]): boolean {
  return matchRow(elements, names, { isMany: (element) => element === "over", fits: matchElement });
}

function matchElement(element: Element, name: string): boolean {
  return (
    element !== "over" &&
    matchRow(element, Array.from(name), { isMany: (token) => token.kind === "many", fits: (token, char) => fits(token, char) })
  );
}

/** Only the last wildcard ever has to be tried again: an earlier one would leave the later ones less to choose from. */
function matchRow<Part, Piece>(
  parts: readonly Part[],
  pieces: readonly Piece[],
  how: { isMany(part: Part): boolean; fits(part: Part, piece: Piece): boolean },
): boolean {
  let part = 0;
  let piece = 0;
  let lastMany = -1;
  let resumeAt = 0;
  while (piece < pieces.length) {
    const current = parts[part];
    if (current !== undefined && how.isMany(current)) {
      lastMany = part;
      resumeAt = piece;
      part += 1;
    } else if (current !== undefined && how.fits(current, pieces[piece] as Piece)) {
      part += 1;
      piece += 1;
    } else if (lastMany >= 0) {
      part = lastMany + 1;
      resumeAt += 1;
      piece = resumeAt;
    } else return false;
  }
  while (part < parts.length && how.isMany(parts[part] as Part)) part += 1;
  return part === parts.length;
}

function fits(token: Token, char: string): boolean {
  switch (token.kind) {
    case "char":
      return token.char === char;
    case "one":
      return true;
    case "class": {
      const code = char.codePointAt(0) ?? 0;
      return token.ranges.some(([low, high]) => low <= code && code <= high) !== token.negated;
    }
    case "many":
      return false;
    default:
      return token satisfies never;
  }
}

function invalid(pattern: string, reason: string): SlipwayError {
  const shown = pattern.length > 100 ? `${pattern.slice(0, 100)}...` : pattern;
  return new SlipwayError("BAD_REQUEST", { message: `invalid pattern ${JSON.stringify(shown)}: ${reason}` });
}
