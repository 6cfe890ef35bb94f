/** /ping, /health, /systeminfo and /api/version. */
import { Router } from "express";
import type { Request } from "express";
import { callerOf } from "./access.ts";
import type { HarborServices } from "./services.ts";

const API_VERSION = "v2.0";

export function createSystemRouter(services: HarborServices): Router {
  const router = Router();
  router.get("/systeminfo", (request, response) => {
    const { config } = services.auth;
    const open = {
      auth_mode: "db_auth",
      primary_auth_mode: false,
      self_registration: false,
      banner_message: "",
      oidc_provider_name: "",
    };
    if (callerOf(request).kind === "anonymous") {
      response.json(open);
      return;
    }
    const externalUrl = services.addresses.externalUrl(request);
    response.json({
      ...open,
      harbor_version: `v${services.version}`,
      external_url: externalUrl,
      registry_url: hostOf(externalUrl),
      has_ca_root: false,
      project_creation_restriction: config.adminOnly ? "adminonly" : "everyone",
      read_only: false,
      registry_storage_provider_name: services.storageProvider,
      notification_enable: false,
      current_time: new Date(services.clock.now()).toISOString(),
    });
  });
  return router;
}

/** Answered without looking at credentials: probes must work whatever the database does. */
export function createProbesRouter(services: Pick<HarborServices, "health">): Router {
  const router = Router();
  router.get("/ping", (_request, response) => {
    response.type("text/plain").send("Pong");
  });
  router.get("/health", async (_request, response) => {
    const components = (await services.health()).toSorted((one, other) => (one.name < other.name ? -1 : 1));
    const status = components.every((component) => component.status === "healthy") ? "healthy" : "unhealthy";
    response.json({ status, components });
  });
  return router;
}

/** GET /api/version, beside the versioned API. */
export function createApiVersionRouter(): Router {
  const router = Router();
  router.get("/", (_request: Request, response) => {
    response.json({ version: API_VERSION });
  });
  return router;
}

function hostOf(url: string): string {
  return url.replace(/^[a-z]+:\/\//, "");
}
