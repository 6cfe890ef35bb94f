/** The version check: how clients find out that this is a registry, and whether their credentials are any good. */
import { identify, unauthorized } from "./access.ts";
import type { Exchange } from "./exchange.ts";
import type { RegistryServices } from "./services.ts";

const EMPTY = Buffer.from("{}");

export async function serveBase(exchange: Exchange, services: RegistryServices): Promise<void> {
  const principal = await identify(exchange, services, []);
  // Without a challenge here `docker login` would call any password right, and clients would never ask for a token.
  if (principal.kind === "anonymous" && services.auth.mode !== "open" && !hasToken(exchange)) {
    throw unauthorized(exchange, services, { scopes: [] });
  }
  exchange.send(200, ["Content-Type", "application/json"], EMPTY);
}

/** An anonymous token has passed the challenge already. */
function hasToken(exchange: Exchange): boolean {
  return exchange.req.headers.authorization !== undefined && exchange.principal.scopes !== null;
}
