/** Clean-up in reverse order: what was started last ends first, so that nothing loses its database while it still works. */
interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export function scope(t: Cleanable): Cleanable {
  const steps: (() => Promise<void> | void)[] = [];
  t.after(async () => {
    for (let step = steps.pop(); step; step = steps.pop()) await step();
  });
  return { after: (fn) => void steps.push(fn) };
}
