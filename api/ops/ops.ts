/** /health, /health/live, /health/ready and /metrics: what every role answers. */
import { Router } from "express";
import type { Response } from "express";
import type { Health, HealthReport } from "../../src/telemetry/health.ts";
import type { Metrics } from "../../src/telemetry/metrics.ts";

export interface OpsServices {
  readonly health: Health;
  readonly metrics: Metrics;
  readonly version: string;
}

export function createOpsRouter(services: OpsServices): Router {
  const router = Router();
  // Alive means that the event loop turns; a missing database must not get the process killed.
  router.get("/health/live", (_request, response) => {
    sendUncached(response, 200, { status: "alive", version: services.version });
  });
  router.get("/health/ready", async (_request, response) => {
    const report = await services.health.report();
    sendUncached(response, report.ready ? 200 : 503, describe(report, report.ready ? "ready" : "not ready"));
  });
  router.get("/health", async (_request, response) => {
    const report = await services.health.report();
    const healthy = report.components.every((component) => component.status === "healthy");
    sendUncached(response, 200, describe(report, healthy ? "healthy" : "unhealthy"));
  });
  router.get("/metrics", async (_request, response) => {
    response.type("text/plain; version=0.0.4; charset=utf-8").send(await services.metrics.render());
  });
  return router;
}

function describe(report: HealthReport, status: string): object {
  return {
    status,
    missing: report.components
      .filter((component) => component.status === "unhealthy" && component.required)
      .map((component) => component.name),
    components: report.components,
  };
}

function sendUncached(response: Response, status: number, body: object): void {
  response.status(status).set("Cache-Control", "no-store").json(body);
}
