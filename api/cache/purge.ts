/** Removing cached content by hand: by digest, by selection, or all of it. Local content cannot be reached from here. */
import { Router } from "express";
import type { Request } from "express";
import { z } from "zod";
import { SlipwayError } from "../../src/core/errors.ts";
import { isDigest } from "../../src/oci/digests.ts";
import type { CacheEvictor, EvictionRules } from "../../src/proxy/eviction.ts";
import { refusal, requireLogin } from "../harbor/access.ts";
import { readBody } from "../harbor/conventions.ts";

export interface PurgeServices {
  readonly evictor: CacheEvictor;
  readonly rules: EvictionRules;
}

/** One request removes at most so many steps; the schedule goes on from there. */
const MAX_STEPS = 200;

const purgeRequest = z
  .strictObject({
    repository: z.string().min(1).optional(),
    tag: z.string().min(1).optional(),
    digest: z.string().min(1).optional(),
    unused_seconds: z.number().min(0).optional(),
    dry_run: z.boolean().default(false),
  })
  .refine(
    (body) => body.repository ?? body.tag ?? body.digest ?? body.unused_seconds,
    "name a repository, a tag, a digest or unused_seconds",
  );

const pinRequest = z.strictObject({ pinned: z.boolean() });

export function createPurgeRouter({ evictor, rules }: PurgeServices): Router {
  const router = Router();
  router.delete("/cache/entries/:digest", async (request, response) => {
    requireAdministrator(request);
    const removed = await evictor.purgeDigest(requireDigest(request), untilClosed(request));
    if (removed === 0) throw new SlipwayError("NOT_FOUND");
    response.status(204).end();
  });
  router.put("/cache/entries/:digest/pin", async (request, response) => {
    requireAdministrator(request);
    const { pinned } = readBody(request, pinRequest);
    if (!(await evictor.pin(requireDigest(request), pinned))) throw new SlipwayError("NOT_FOUND");
    response.json({ pinned });
  });
  router.delete("/cache", async (request, response) => {
    requireAdministrator(request);
    const signal = untilClosed(request);
    let cleared = 0;
    for (let step = 0; step < MAX_STEPS; step += 1) {
      const { manifests } = await evictor.purge({}, { dryRun: false, signal });
      cleared += manifests;
      if (manifests === 0) break;
    }
    response.json({ cleared });
  });
  router.post("/cache/cleanup", async (request, response) => {
    requireAdministrator(request);
    const signal = untilClosed(request);
    let cleaned = 0;
    for (let count = 0; count < MAX_STEPS; count += 1) {
      const step = await evictor.step(rules, signal);
      cleaned += step.manifests + step.blobs;
      if (step.finished) break;
    }
    response.json({ cleaned });
  });
  router.post("/cache/purge", async (request, response) => {
    requireAdministrator(request);
    const { repository, tag, digest, unused_seconds: unused, dry_run: dryRun } = readBody(request, purgeRequest);
    const selection = {
      ...(repository === undefined ? {} : { repository }),
      ...(tag === undefined ? {} : { tag }),
      ...(digest === undefined ? {} : { digest }),
      ...(unused === undefined ? {} : { unusedMs: unused * 1000 }),
    };
    const { manifests, bytes } = await evictor.purge(selection, { dryRun, signal: untilClosed(request) });
    response.json({ manifests, bytes, dry_run: dryRun });
  });
  return router;
}

function requireAdministrator(request: Request): void {
  const caller = requireLogin(request);
  if (!caller.sysadmin) throw refusal(caller);
}

function requireDigest(request: Request): string {
  const digest = String(request.params["digest"]);
  if (!isDigest(digest)) throw new SlipwayError("BAD_REQUEST", { message: "expected a digest such as sha256:<64 hexadecimal digits>" });
  return digest;
}

function untilClosed(request: Request): AbortSignal {
  const controller = new AbortController();
  request.res?.once("close", () => controller.abort(new SlipwayError("CANCELLED")));
  return controller.signal;
}
