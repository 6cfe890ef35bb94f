/** Closes parts in the reverse order of their start; one failing part does not keep the others open. */
export class Closer {
  readonly #parts: { name: string; close: () => Promise<void> | void }[] = [];

  add(name: string, close: () => Promise<void> | void): void {
    this.#parts.push({ name, close });
  }

  async close(): Promise<{ name: string; error: unknown }[]> {
    const failures: { name: string; error: unknown }[] = [];
    for (let part = this.#parts.pop(); part; part = this.#parts.pop()) {
      try {
        await part.close();
      } catch (error) {
        failures.push({ name: part.name, error });
      }
    }
    return failures;
  }
}
