/** The API that tools of Harbor Cache use: what is mounted at /api/v1. */
import { Router } from "express";
import { identify } from "../harbor/access.ts";
import { jsonBody } from "../harbor/conventions.ts";
import { createCacheRouter } from "./cache.ts";
import { answerCacheError } from "./errors.ts";
import { createLoginRouter } from "./login.ts";
import type { CacheApiServices } from "./services.ts";
import { createUpstreamChangesRouter } from "./upstream-changes.ts";
import { createUpstreamsRouter } from "./upstreams.ts";

/** Further parts come as routers that are mounted behind the same conventions. */
export function createCacheApiRouter(services: CacheApiServices, further: readonly Router[] = []): Router {
  const router = Router();
  router.use((_request, response, next) => {
    response.set("Cache-Control", "no-store");
    next();
  });
  router.use(createLoginRouter(services), identify(services), jsonBody, ...cacheParts(services), ...further);
  router.use(answerCacheError);
  return router;
}

export function cacheParts(services: CacheApiServices): Router[] {
  return [createCacheRouter(services), createUpstreamsRouter(services), createUpstreamChangesRouter(services)];
}
