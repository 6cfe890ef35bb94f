/**
 * Quay: with an OAuth token its API lists repositories by namespace and makes organizations; without one the registry's own catalog shows what the account
 * may read. The credential may be the JSON file that Harbor's clients know, with account, password and that token in it.
 */
import { z } from "zod";
import type { UpstreamClient } from "../../upstream/client.ts";
import { namesPage, walkProjects } from "./nested-listing.ts";
import type { NamePage } from "./nested-listing.ts";
import type { Product, ProductBuilder } from "./product.ts";
import { calling } from "./remote-adapter.ts";

const Secret = z.object({
  account_name: z.string().optional(),
  docker_cli_password: z.string().optional(),
  oauth2_token: z.string().optional(),
});

const Repositories = z.object({
  repositories: z.array(z.object({ namespace: z.string(), name: z.string() })),
  next_page: z.string().nullish(),
});
const User = z.object({ username: z.string(), organizations: z.array(z.object({ name: z.string() })).optional() });

export const quay: ProductBuilder = ({ registry, endpoint, pool }) => {
  const secret = readSecret(registry.accessSecret);
  if (secret === null) return { endpoint, hooks: { capabilities: { minPathElements: 2 } } };
  const { account_name: username, docker_cli_password: password, oauth2_token: token } = secret;
  const credential = username && password ? ({ type: "basic", username, password } as const) : null;
  const own = { ...endpoint, credential };
  if (!token) return { endpoint: own, hooks: { capabilities: { minPathElements: 2 } } };
  return { endpoint: own, hooks: quayHooks(pool.client({ ...endpoint, credential: { type: "bearer", token } })) };
};

function quayHooks(api: UpstreamClient): Product["hooks"] {
  return {
    capabilities: { minPathElements: 2 },
    listRepositories: walkProjects((namespaces) => ({
      projects: async (_, signal) => namesPage(namespaces ?? (await ownNamespaces(api, signal))),
      repositories: (namespace, page, signal) => repositoriesOf(api, { namespace, page }, signal),
    })),
    prepare: async (repository, _options, signal) => {
      const name = repository.split("/")[0] ?? "";
      const found = await api.api({
        method: "GET",
        path: `/api/v1/organization/${encodeURIComponent(name)}`,
        pass: [401, 403, 404],
        ...calling(signal),
      });
      if (found.status !== 404) return { usable: true };
      // A user's own namespace is no organization, and its name is taken.
      const body = { name, email: `${name}@quay.io` };
      await api.api({ method: "POST", path: "/api/v1/organization/", body, pass: [400, 403], ...calling(signal) });
      return { usable: true };
    },
  };
}

async function ownNamespaces(api: UpstreamClient, signal: AbortSignal): Promise<string[]> {
  const user = User.safeParse((await api.api({ method: "GET", path: "/api/v1/user/", ...calling(signal) })).json).data;
  return user ? [user.username, ...(user.organizations ?? []).map(({ name }) => name)] : [];
}

async function repositoriesOf(
  api: UpstreamClient,
  { namespace, page }: { readonly namespace: string; readonly page: string | null },
  signal: AbortSignal,
): Promise<NamePage> {
  const query = new URLSearchParams({ namespace, ...(page === null ? {} : { next_page: page }) });
  const answer = await api.api({ method: "GET", path: `/api/v1/repository?${query}`, pass: [404], ...calling(signal) });
  const document = Repositories.safeParse(answer.json).data;
  const names = (document?.repositories ?? []).map((repository) => `${repository.namespace}/${repository.name}`);
  return { names, next: document?.next_page ?? null };
}

/** Null when the secret is a plain password. */
function readSecret(text: string): z.infer<typeof Secret> | null {
  if (!text.trimStart().startsWith("{")) return null;
  try {
    return Secret.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}
