/** Finds the position of a syntax error in JSON text. Browsers do not report the position reliably. */

export interface JsonIssue {
  /** Position in the text, in UTF-16 code units. */
  readonly offset: number;
  readonly message: string;
}

class Scanner {
  readonly #text: string;
  #offset = 0;

  constructor(text: string) {
    this.#text = text;
  }

  scan(): void {
    this.#value();
    this.#space();
    if (this.#offset < this.#text.length) this.#fail();
  }

  get offset(): number {
    return this.#offset;
  }

  #fail(message?: string): never {
    const found = this.#text.charAt(this.#offset);
    throw new ScanError(message ?? (found === '' ? 'the text ends too early' : `unexpected ${JSON.stringify(found)}`));
  }

  #space(): void {
    while (/[ \t\n\r]/.test(this.#text.charAt(this.#offset))) this.#offset += 1;
  }

  #take(character: string): boolean {
    this.#space();
    if (this.#text.charAt(this.#offset) !== character) return false;
    this.#offset += 1;
    return true;
  }

  #expect(character: string): void {
    if (!this.#take(character)) this.#fail();
  }

  #match(pattern: RegExp): boolean {
    pattern.lastIndex = this.#offset;
    const length = pattern.exec(this.#text)?.[0].length;
    if (length === undefined) return false;
    this.#offset += length;
    return true;
  }

  #value(): void {
    if (this.#take('{')) this.#object();
    else if (this.#take('[')) this.#array();
    else if (this.#text.charAt(this.#offset) === '"') this.#string();
    else if (!this.#match(/-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?|true|false|null/y)) this.#fail();
  }

  #object(): void {
    if (this.#take('}')) return;
    const names = new Set<string>();
    do {
      this.#space();
      const start = this.#offset;
      if (this.#text.charAt(start) !== '"') this.#fail();
      this.#string();
      const name = this.#text.slice(start, this.#offset);
      if (names.has(name)) {
        this.#offset = start;
        this.#fail(`the key ${name} occurs twice`);
      }
      names.add(name);
      this.#expect(':');
      this.#value();
    } while (this.#take(','));
    this.#expect('}');
  }

  #array(): void {
    if (this.#take(']')) return;
    do this.#value();
    while (this.#take(','));
    this.#expect(']');
  }

  #string(): void {
    this.#offset += 1;
    this.#match(/([^"\\\p{Cc}]|\\(["\\/bfnrt]|u[0-9a-fA-F]{4}))*/uy);
    if (this.#text.charAt(this.#offset) !== '"') this.#fail();
    this.#offset += 1;
  }
}

class ScanError extends Error {}

/** Returns the first syntax error or duplicate key, or `null` if there is none. */
export function findJsonIssue(text: string): JsonIssue | null {
  const scanner = new Scanner(text);
  try {
    scanner.scan();
    return null;
  } catch (error) {
    if (error instanceof ScanError) return { offset: scanner.offset, message: error.message };
    throw error;
  }
}
