/** Calls that come in the same turn become one statement: a client that asks for ten blobs at once costs one round trip and one commit, not ten. */
import { isSlipwayError } from "../core/errors.ts";

interface Waiting<Key, Answer> {
  readonly key: Key;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

export interface GatheredOptions<Key, Answer> {
  /** Answers in the order of the keys. */
  readonly run: (keys: readonly Key[]) => Promise<readonly Answer[]>;
  /** Keys of the same identity never go into the same statement. */
  readonly identityOf: (key: Key) => string;
  readonly max: number;
}

export function gathered<Key, Answer>({ run, identityOf, max }: GatheredOptions<Key, Answer>): (key: Key) => Promise<Answer> {
  let batch = new Map<string, Waiting<Key, Answer>>();
  const runOne = async ({ key, resolve, reject }: Waiting<Key, Answer>): Promise<void> => {
    try {
      resolve((await run([key]))[0] as Answer);
    } catch (error) {
      reject(error);
    }
  };
  const send = async (): Promise<void> => {
    const calls = [...batch.values()];
    batch = new Map();
    if (calls.length === 1 && calls[0]) return runOne(calls[0]);
    try {
      const answers = await run(calls.map(({ key }) => key));
      for (const [index, { resolve }] of calls.entries()) resolve(answers[index] as Answer);
    } catch (error) {
      // What is wrong with one of them is not the trouble of the others.
      if (isSlipwayError(error, "DATABASE_UNAVAILABLE")) for (const { reject } of calls) reject(error);
      else await Promise.all(calls.map(runOne));
    }
  };
  return (key) =>
    new Promise((resolve, reject) => {
      if (batch.size >= max || batch.has(identityOf(key))) void send();
      if (batch.size === 0) setImmediate(() => batch.size > 0 && void send());
      batch.set(identityOf(key), { key, resolve, reject });
    });
}
