/** A Temporal namespace of the test's own on the server of the test run: ids, queues and schedules are the real ones, and never collide. */
import { randomBytes } from "node:crypto";
import { Connection } from "@temporalio/client";
import { TemporalConnection } from "../../src/temporal/connection.ts";
import { testTemporalAddress } from "./services.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export interface TestTemporal {
  readonly address: string;
  readonly namespace: string;
  readonly temporal: TemporalConnection;
}

const DAY_SECONDS = 86_400;

export async function testNamespace(t: Cleanable): Promise<TestTemporal> {
  const address = await testTemporalAddress();
  const namespace = `test-${randomBytes(6).toString("hex")}`;
  const admin = await Connection.connect({ address });
  type Retention = NonNullable<Parameters<typeof admin.workflowService.registerNamespace>[0]["workflowExecutionRetentionPeriod"]>;
  const retention = { seconds: DAY_SECONDS as unknown as Retention["seconds"] } as Retention;
  await admin.workflowService.registerNamespace({ namespace, workflowExecutionRetentionPeriod: retention });
  const temporal = new TemporalConnection({ address, namespace });
  t.after(async () => {
    await temporal.close();
    // The server takes its time at times; a namespace that stays behind harms nobody.
    await admin.withDeadline(Date.now() + 2_000, () => admin.operatorService.deleteNamespace({ namespace })).catch(() => undefined);
    await admin.close();
  });
  return { address, namespace, temporal };
}
