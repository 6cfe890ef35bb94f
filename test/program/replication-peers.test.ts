/** Two of us, of which one knows the other as a Harbor: what is there comes here, what is here goes there, and a signature follows its image. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { buildImage, writeLayout } from "../support/image.ts";
import { eventually } from "../support/maintenance.ts";
import type { RunningSlipway } from "../support/slipway.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { missingTool, mustRun } from "../support/tools.ts";
import { basic } from "./support.ts";

const skip = missingTool("skopeo");

interface Row {
  readonly name?: string;
  readonly digest?: string;
  readonly type?: string;
  readonly status?: string;
  readonly status_text?: string;
  readonly artifact_count?: number;
  readonly tags?: readonly { readonly name: string }[] | null;
  readonly accessories?: readonly { readonly digest: string; readonly type: string }[] | null;
}

function client({ url, password }: RunningSlipway) {
  const call = async (method: string, path: string, options: { body?: unknown; type?: string } = {}): Promise<Response> => {
    const headers = { authorization: basic("admin", password), "content-type": options.type ?? "application/json" };
    const body = options.body === undefined ? {} : { body: JSON.stringify(options.body) };
    return await fetch(`${url}${path}`, { method, headers, ...body });
  };
  const done = async (method: string, path: string, options: { body?: unknown; type?: string } = {}): Promise<Response> => {
    const answer = await call(method, path, options);
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${answer.ok ? "" : await answer.text()}`);
    return answer;
  };
  const rows = async (path: string): Promise<Row[]> => (await (await done("GET", `/api/v2.0${path}`)).json()) as Row[];
  const made = async (path: string, body: unknown): Promise<number> =>
    Number(((await done("POST", `/api/v2.0${path}`, { body })).headers.get("location") ?? "").split("/").at(-1));
  return { call, done, rows, made };
}

async function replicate({ done, made }: ReturnType<typeof client>, policy: object): Promise<Row> {
  const id = await made("/replication/executions", {
    policy_id: await made("/replication/policies", { enabled: true, override: true, ...policy }),
  });
  return await eventually(
    "the run ends",
    async () => {
      const view = (await (await done("GET", `/api/v2.0/replication/executions/${id}`)).json()) as Row;
      return view.status === "InProgress" ? null : view;
    },
    60_000,
  );
}

test("another Slipway is a Harbor to replicate from and to", { skip }, async (t) => {
  const folder = await tempDir(t);
  const image = buildImage();
  await writeLayout(folder, image, "v1");
  const theirs = await startSlipway(t, { env: await sharedServices(t), args: ["--role", "proxy", "--role", "api"] });
  const ours = await startSlipway(t, {
    env: await sharedServices(t),
    args: ["proxy", "api", "replication"].flatMap((role) => ["--role", role]),
  });
  const [there, here] = [client(theirs), client(ours)];
  await there.done("POST", "/api/v2.0/projects", { body: { project_name: "team", public: true } });
  const credential = ["--dest-creds", `admin:${theirs.password}`, "--dest-tls-verify=false"];
  for (const tag of ["v1", "latest"])
    await mustRun("skopeo", ["copy", ...credential, `oci:${folder}:v1`, `docker://${theirs.host}/team/deep/app:${tag}`]);
  const config = image.blobs.keys().next().value ?? "";
  const signature = {
    schemaVersion: 2,
    mediaType: image.manifest.mediaType,
    artifactType: "application/vnd.dev.cosign.artifact.sig.v1+json",
    config: { mediaType: "application/vnd.oci.empty.v1+json", digest: config, size: image.blobs.get(config)?.length },
    layers: [],
    subject: { mediaType: image.manifest.mediaType, digest: image.manifest.digest, size: image.manifest.size },
  };
  const put = await there.done("PUT", "/v2/team/deep/app/manifests/signed", { body: signature, type: image.manifest.mediaType });
  const signed = put.headers.get("docker-content-digest");

  const listed = "/projects/team/repositories/deep%252Fapp/artifacts";
  assert.deepEqual(
    (await there.rows("/projects/team/repositories")).map(({ name, artifact_count: count }) => [name, count]),
    [["team/deep/app", 2]],
  );
  assert.deepEqual(
    (await there.rows(`/repositories?q=blob_digest=${config}&page_size=1`)).map(({ name }) => name),
    ["team/deep/app"],
  );
  const [artifact, ...others] = await there.rows(`${listed}?with_accessory=true&page_size=100`);
  assert.deepEqual([others.length, artifact?.type, artifact?.digest], [0, "IMAGE", image.manifest.digest]);
  assert.deepEqual(artifact?.tags?.map(({ name }) => name).toSorted(), ["latest", "v1"]);
  assert.deepEqual(
    artifact?.accessories?.map(({ digest, type }) => [digest, type]),
    [[signed, "signature.cosign"]],
  );

  const peer = await here.made("/registries", {
    name: "theirs",
    type: "harbor",
    url: theirs.url,
    credential: { type: "basic", access_key: "admin", access_secret: theirs.password },
  });
  const filters = [{ type: "name", value: "team/**" }];
  const into = { name: "in", src_registry: { id: peer }, filters, dest_namespace: "mirror", dest_namespace_replace_count: 1 };
  const copied = await replicate(here, into);
  assert.equal(copied.status, "Succeed", copied.status_text);
  const [mirrored] = await here.rows("/projects/mirror/repositories/deep%252Fapp/artifacts?with_accessory=true");
  assert.deepEqual(mirrored, { ...mirrored, digest: image.manifest.digest });
  assert.deepEqual(
    mirrored?.accessories?.map(({ digest }) => digest),
    [signed],
  );

  const out = { name: "out", dest_registry: { id: peer }, filters: [{ type: "name", value: "mirror/**" }] };
  const back = await replicate(here, { ...out, dest_namespace: "copies", dest_namespace_replace_count: 1 });
  assert.equal(back.status, "Succeed", back.status_text);
  assert.equal((await there.call("GET", "/v2/copies/deep/app/manifests/v1")).headers.get("docker-content-digest"), image.manifest.digest);
  const deleted = "/api/v2.0/projects/copies/repositories/deep%252Fapp/artifacts/v1/tags/v1";
  assert.equal((await there.call("DELETE", deleted)).status, 200);
  assert.equal((await there.call("DELETE", deleted)).status, 404);
  assert.equal((await there.call("GET", "/v2/copies/deep/app/manifests/latest")).status, 200);
});
