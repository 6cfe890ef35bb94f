/** S3 against the conformance test of all drivers, on a real server, and what only a service can do: go away. */
import { after } from "node:test";
import { openBlobStore } from "../../src/storage/open-store.ts";
import { storeConformance } from "../support/store-conformance.ts";
import { missingVersitygw, startVersitygw } from "../support/versitygw.ts";

const skip = await missingVersitygw();
const server = skip === false ? await startVersitygw({ after }) : null;
let prefixes = 0;

storeConformance({
  name: "s3",
  skip,
  storage: async () => {
    prefixes += 1;
    const prefix = `test-${prefixes}`;
    return {
      open: async () => {
        if (!server) throw new Error("no server");
        return await openBlobStore({ ...server.config, prefix });
      },
    };
  },
});
