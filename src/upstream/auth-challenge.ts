/** WWW-Authenticate as RFC 9110 writes it: several headers, several challenges in one, tokens or quoted strings, any case. */

export interface Challenge {
  /** Lower case. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: Readonly<Record<string, string>>;
}

const MAX_HEADER_LENGTH = 8192;
const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]/;

class Scanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get done(): boolean {
    return this.#at >= this.#text.length;
  }

  get mark(): number {
    return this.#at;
  }

  back(mark: number): void {
    this.#at = mark;
  }

  skip(characters: string): void {
    while (!this.done && characters.includes(this.#text.charAt(this.#at))) this.#at += 1;
  }

  take(character: string): boolean {
    if (this.#text.charAt(this.#at) !== character) return false;
    this.#at += 1;
    return true;
  }

  token(): string {
    const start = this.#at;
    while (!this.done && TOKEN.test(this.#text.charAt(this.#at))) this.#at += 1;
    return this.#text.slice(start, this.#at);
  }

  quoted(): string {
    let value = "";
    while (!this.done) {
      const character = this.#text.charAt(this.#at++);
      if (character === '"') return value;
      value += character === "\\" ? this.#text.charAt(this.#at++) : character;
    }
    return value;
  }

  /** Unquoted values of real registries hold characters that a token may not, such as the slashes of a URL. */
  bare(): string {
    const start = this.#at;
    while (!this.done && !", \t".includes(this.#text.charAt(this.#at))) this.#at += 1;
    return this.#text.slice(start, this.#at);
  }
}

function readParameter(scanner: Scanner): { name: string; value: string } | null {
  const mark = scanner.mark;
  const name = scanner.token();
  scanner.skip(" \t");
  if (name === "" || !scanner.take("=")) {
    scanner.back(mark);
    return null;
  }
  scanner.skip(" \t");
  const value = scanner.take('"') ? scanner.quoted() : scanner.bare();
  return { name: name.toLowerCase(), value };
}

function parseOne(header: string): Challenge[] {
  const scanner = new Scanner(header.slice(0, MAX_HEADER_LENGTH));
  const challenges: Challenge[] = [];
  let parameters: Record<string, string> = {};
  for (;;) {
    scanner.skip(", \t");
    if (scanner.done) return challenges;
    const parameter = readParameter(scanner);
    if (parameter) {
      parameters[parameter.name] ??= parameter.value;
      continue;
    }
    const scheme = scanner.token();
    if (scheme === "") return challenges;
    parameters = Object.create(null) as Record<string, string>;
    challenges.push({ scheme: scheme.toLowerCase(), parameters });
  }
}

export function parseChallenges(headers: string | readonly string[] | undefined): Challenge[] {
  if (headers === undefined) return [];
  return (typeof headers === "string" ? [headers] : headers).flatMap(parseOne);
}
