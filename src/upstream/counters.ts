/** Plain numbers, handed to the metrics at scrape. Labels are bounded: hosts are those that operators named, the rest is "other". */
import type { CallKind } from "./types.ts";

export interface CallCount {
  readonly host: string;
  readonly kind: CallKind;
  readonly status: string;
  readonly count: number;
}

const MAX_SERIES = 5000;

export class Counters {
  readonly #calls = new Map<string, { host: string; kind: CallKind; status: string; count: number }>();
  retries = 0;
  failovers = 0;
  resumes = 0;
  stalls = 0;
  bodyBytes = 0;

  /** A status of 0 says that there was no answer. */
  call(host: string, kind: CallKind, status: number): void {
    const key = `${host} ${kind} ${status}`;
    const known = this.#calls.get(key);
    if (known) {
      known.count += 1;
      return;
    }
    if (this.#calls.size < MAX_SERIES) this.#calls.set(key, { host, kind, status: status === 0 ? "none" : String(status), count: 1 });
  }

  calls(): CallCount[] {
    return [...this.#calls.values()].map((each) => ({ ...each }));
  }
}
