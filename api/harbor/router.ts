/** The Harbor-shaped API below /api/v2.0. */
import { Router } from "express";
import { identify } from "./access.ts";
import { jsonBody } from "./conventions.ts";
import { answerHarborError } from "./errors.ts";
import { createMembersRouter, createMetadatasRouter } from "./members.ts";
import { createProjectsRouter } from "./projects.ts";
import { createRobotsRouter } from "./robots.ts";
import type { HarborServices } from "./services.ts";
import { createProbesRouter, createSystemRouter } from "./system.ts";
import { createUsersRouter } from "./users.ts";

/** Further parts of the API (registries, replication) come as routers that are mounted behind the same conventions. */
export function createHarborRouter(services: HarborServices, further: readonly Router[] = []): Router {
  const router = Router();
  router.use((_request, response, next) => {
    // Answers depend on who asks.
    response.set("Cache-Control", "no-store");
    next();
  });
  router.use(createProbesRouter(services), identify(services), jsonBody);
  for (const part of harborParts(services)) router.use(part);
  for (const part of further) router.use(part);
  router.use(answerHarborError);
  return router;
}

export function harborParts(services: HarborServices): Router[] {
  return [
    createSystemRouter(services),
    createUsersRouter(services),
    createProjectsRouter(services),
    createMembersRouter(services),
    createMetadatasRouter(services),
    createRobotsRouter(services),
  ];
}
