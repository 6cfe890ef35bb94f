/** The Harbor-shaped API: what is mounted at /api. */
import { Router } from "express";
import { identify } from "./access.ts";
import { createContentRouter } from "./content.ts";
import { jsonBody } from "./conventions.ts";
import { answerHarborError } from "./errors.ts";
import { createMembersRouter, createMetadatasRouter } from "./members.ts";
import { createProjectsRouter } from "./projects.ts";
import { createRobotsRouter } from "./robots.ts";
import type { HarborServices } from "./services.ts";
import { createApiVersionRouter, createProbesRouter, createSystemRouter } from "./system.ts";
import { createUsersRouter } from "./users.ts";

/** Further parts (registries, replication) come as routers that are mounted behind the same conventions, below /api/v2.0. */
export function createHarborRouter(services: HarborServices, further: readonly Router[] = []): Router {
  const router = Router();
  router.use((_request, response, next) => {
    // Answers depend on who asks.
    response.set("Cache-Control", "no-store");
    next();
  });
  router.use("/version", createApiVersionRouter());
  router.use("/v2.0", createProbesRouter(services), identify(services), jsonBody, ...harborParts(services), ...further);
  router.use(answerHarborError);
  return router;
}

export function harborParts(services: HarborServices): Router[] {
  return [
    createSystemRouter(services),
    createUsersRouter(services),
    createProjectsRouter(services),
    createContentRouter(services),
    createMembersRouter(services),
    createMetadatasRouter(services),
    createRobotsRouter(services),
  ];
}
