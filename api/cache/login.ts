/** POST /auth/login: a token for the management APIs. */
import { Router } from "express";
import { z } from "zod";
import { API_BOUND } from "../../src/auth/scopes.ts";
import { jsonBody, readBody } from "../harbor/conventions.ts";
import type { CacheApiServices } from "./services.ts";

const login = z.object({ username: z.string().min(1), password: z.string().min(1) });

export function createLoginRouter({ auth, addresses }: Pick<CacheApiServices, "auth" | "addresses">): Router {
  const router = Router();
  router.post("/auth/login", jsonBody, async (request, response) => {
    const issued = await auth.tokenService.issueForPassword(
      readBody(request, login),
      { service: undefined, scopes: [`${API_BOUND}:*`], offline: false, resolveProject: async () => null },
      { remoteAddress: addresses.remoteAddress(request) },
    );
    response.json({ token: issued.token, expires_in: issued.expiresInSeconds });
  });
  return router;
}
