/** What authentication needs of the invalidation channel between processes. */
export interface Invalidations {
  /** Resolves when every live process has dropped what it knows of the scopes, or after the bus's own deadline. */
  publish(scopes: readonly string[]): Promise<void>;
  /** False while it is not certain that all messages so far have arrived. */
  trusted(): boolean;
  /** Told of scopes that were invalidated here or elsewhere. Returns how to stop. */
  subscribe(listener: (scopes: readonly string[]) => void): () => void;
  /** Told when messages may have been lost for good. Returns how to stop. */
  onReset(listener: () => void): () => void;
}
