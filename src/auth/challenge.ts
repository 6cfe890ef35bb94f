/** The challenge that sends clients to the token service. */
export const TOKEN_SERVICE = "slipway";
export const TOKEN_PATH = "/service/token";

export interface ChallengeScope {
  /** Null for the catalog of all repositories. */
  readonly repository: string | null;
  readonly actions: readonly string[];
}

/**
 * Clients find the scheme by looking for its name, some of them anywhere in the header: so no other part may contain the word, and every
 * value is quoted.
 */
export function challengeFor(
  externalUrl: string,
  scopes: readonly ChallengeScope[],
  error?: "invalid_token" | "insufficient_scope",
): string {
  const parts = [`realm="${quotable(externalUrl)}${TOKEN_PATH}"`, `service="${TOKEN_SERVICE}"`];
  const scope = scopes.map(({ repository, actions }) =>
    repository === null ? "registry:catalog:*" : `repository:${quotable(repository)}:${actions.join(",")}`,
  );
  if (scope.length > 0) parts.push(`scope="${scope.join(" ")}"`);
  if (error !== undefined) parts.push(`error="${error}"`);
  return `Bearer ${parts.join(",")}`;
}

function quotable(text: string): string {
  return text.replace(/[^ -~]|["\\]/g, "");
}
