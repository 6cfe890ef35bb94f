/** What activities throw, as Temporal sees it. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { ApplicationFailure, CancelledFailure } from "@temporalio/common";
import { toActivityFailure } from "../../activities/shared/failure-map.ts";
import { ERROR_CATALOGUE, SlipwayError } from "../../src/core/errors.ts";
import type { ErrorCode } from "../../src/core/errors.ts";

function mapped(error: unknown): ApplicationFailure {
  const failure = toActivityFailure(error);
  assert.ok(failure instanceof ApplicationFailure);
  return failure;
}

test("every code of the catalogue keeps its name, and is retried exactly when the catalogue says so", () => {
  for (const code of Object.keys(ERROR_CATALOGUE) as ErrorCode[]) {
    const failure = mapped(new SlipwayError(code));
    assert.equal(failure.type, code);
    assert.equal(failure.nonRetryable, !ERROR_CATALOGUE[code].retryable, code);
    assert.equal(failure.message, ERROR_CATALOGUE[code].message);
  }
});

test("the time that the other side asked for becomes the delay of the next try", () => {
  const table: { error: SlipwayError; delay: unknown }[] = [
    { error: new SlipwayError("UPSTREAM_LIMITED", { retryAfterSeconds: 7 }), delay: 7_000 },
    { error: new SlipwayError("DATABASE_UNAVAILABLE", { retryAfterSeconds: 0.5 }), delay: 500 },
    { error: new SlipwayError("UPSTREAM_LIMITED", { retryAfterSeconds: 999_999 }), delay: 3_600_000 },
    { error: new SlipwayError("UPSTREAM_UNREACHABLE"), delay: undefined },
    { error: new SlipwayError("BLOB_UNKNOWN", { retryAfterSeconds: 7 }), delay: undefined },
  ];
  for (const { error, delay } of table) assert.equal(mapped(error).nextRetryDelay ?? undefined, delay, error.code);
});

test("short details travel, long ones do not", () => {
  assert.deepEqual(mapped(new SlipwayError("CONFLICT", { detail: { executionId: 7 } })).details, [{ executionId: 7 }]);
  assert.deepEqual(mapped(new SlipwayError("CONFLICT", { detail: "x".repeat(2_000) })).details ?? [], []);
  assert.ok((mapped(new SlipwayError("CONFLICT", { message: "m".repeat(9_000) })).message ?? "").length <= 500);
});

test("nothing of a cause, and no text of a foreign error, reaches the history", () => {
  const secret = "hunter2-Xyz";
  const foreign = Object.assign(new TypeError(`connect https://user:${secret}@registry.example`), { code: "ECONNRESET" });
  const own = new SlipwayError("UPSTREAM_UNREACHABLE", { cause: foreign });
  for (const failure of [mapped(own), mapped(foreign), mapped(`thrown text ${secret}`)]) {
    const seen = `${failure.message} ${failure.type} ${JSON.stringify(failure.details)} ${String(failure.cause)} ${failure.stack}`;
    assert.ok(!seen.includes(secret));
  }
  assert.equal(mapped(foreign).message, "internal error (TypeError ECONNRESET)");
  assert.equal(mapped(foreign).nonRetryable, false);
});

test("an abort is a cancellation with the reason that the activity was given", () => {
  const reason = new CancelledFailure("WORKER_SHUTDOWN");
  const aborted = AbortSignal.abort(reason);
  const table: unknown[] = [reason, new DOMException("aborted", "AbortError"), new SlipwayError("CANCELLED")];
  for (const error of table) assert.equal(toActivityFailure(error, aborted), reason);
  assert.ok(toActivityFailure(new SlipwayError("DIGEST_MISMATCH"), aborted) instanceof ApplicationFailure, "a failure stays one");
  assert.ok(toActivityFailure(new DOMException("aborted", "AbortError")) instanceof ApplicationFailure, "an inner deadline is a failure");
});
