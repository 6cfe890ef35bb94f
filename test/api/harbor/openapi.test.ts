import assert from "node:assert/strict";
import { test } from "node:test";
import { createProbesRouter } from "../../../api/harbor/system.ts";
import { harborParts } from "../../../api/harbor/harbor.ts";
import type { HarborServices } from "../../../api/harbor/services.ts";
import { createTokenRouter } from "../../../api/token.ts";
import type { TokenRouterServices } from "../../../api/token.ts";
import { loadOpenApi, OpenApi, routesOf } from "../../support/openapi.ts";

test("every route is described, and nothing is described that has no route", async () => {
  // Routers only keep what they are given until a request comes.
  const services = { auth: {} } as unknown as HarborServices;
  const routes = [
    "GET /api/version",
    ...routesOf(createTokenRouter({} as TokenRouterServices), "/service/token").filter((route) => /^(GET|POST) /.test(route)),
    ...routesOf(createProbesRouter(services), "/api/v2.0"),
    ...harborParts(services).flatMap((router) => routesOf(router, "/api/v2.0")),
  ];
  const document = await loadOpenApi();
  const ours =
    /^[A-Z]+ (?:\/service\/token|\/api\/version|\/api\/v2\.0\/(?:ping|health|systeminfo|users|projects|repositories|robots)(?:\/|$))/;
  assert.deepEqual(
    [...new Set(routes)].toSorted(),
    document.operations().filter((operation) => ours.test(operation)),
  );
});

test("the validator finds what is missing, additional, of the wrong type or undescribed", () => {
  const schema = { type: "object", required: ["id"], additionalProperties: false, properties: { id: { type: "integer" } } };
  const document = new OpenApi({
    paths: { "/x": { get: { responses: { "200": { content: { "application/json": { schema } } } } } } },
  });
  assert.deepEqual(document.checkResponse("GET /x", 200, { id: 1 }), []);
  for (const wrong of [{}, { id: "1" }, { id: 1.5 }, { id: 1, other: 2 }, [], null]) {
    assert.equal(document.checkResponse("GET /x", 200, wrong).length, 1, JSON.stringify(wrong));
  }
  assert.equal(document.checkResponse("GET /x", 404, {}).length, 1);
  assert.equal(document.checkResponse("PUT /x", 200, {}).length, 1);
});
