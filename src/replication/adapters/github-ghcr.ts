/** GitHub's registry lists no repositories and deletes nothing by the registry protocol. */
import { SlipwayError } from "../../core/errors.ts";
import type { ProductBuilder } from "./product.ts";

export const githubGhcr: ProductBuilder = ({ endpoint }) => ({
  endpoint,
  hooks: {
    capabilities: { deletesTags: false, deletesManifests: false, minPathElements: 2 },
    listRepositories: () => Promise.reject(new SlipwayError("BAD_REQUEST", { message: "only support specific repository name" })),
  },
});
