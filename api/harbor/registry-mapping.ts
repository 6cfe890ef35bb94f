/** Registries between our model and Harbor's JSON. What is ours beyond Harbor stands in further fields. */
import { z } from "zod";
import { SlipwayError } from "../../src/core/errors.ts";
import {
  checkCertificate,
  checkHost,
  checkPath,
  checkPattern,
  CREDENTIAL_TYPES,
  MAX_NAME,
  normalizeUrl,
  REGISTRY_TYPES,
} from "../../src/proxy/registry-draft.ts";
import type { Registry, RegistryDraft } from "../../src/proxy/registry-store.ts";
import { EMPTY_REGISTRY } from "../../src/proxy/registry-store.ts";
import { inOrder, omitEmpty } from "./conventions.ts";

/** What stands for a secret in answers; sent back, it means "as it is". */
export const MASK = "*****";

function checked(check: (text: string) => string | null): z.ZodString {
  return z.string().check((context) => {
    const problem = check(context.value);
    if (problem !== null) context.issues.push({ code: "custom", message: problem, input: context.value });
  });
}

const priority = z.number().int().min(-1_000_000).max(1_000_000);
const route = z.object({ pattern: checked(checkPattern), priority: priority.default(100) });
const project = z.object({
  name: checked(checkPath),
  pattern: checked(checkPattern).optional(),
  priority: priority.default(100),
  is_default: z.boolean().default(false),
});
/** Null and absence are the same: clients in Go send both. */
const common = {
  name: z.string().nullish(),
  description: z.string().max(4096).nullish(),
  url: z.string().nullish(),
  type: z.string().nullish(),
  insecure: z.boolean().nullish(),
  ca_certificate: z.string().max(65_536).nullish(),
  mirrors: z.array(z.string()).max(9).nullish(),
  hosts: z.array(checked(checkHost)).max(50).nullish(),
  enabled: z.boolean().nullish(),
  priority: priority.nullish(),
  is_default: z.boolean().nullish(),
  routes: z.array(route).max(100).nullish(),
  prefix: z.string().nullish(),
  projects: z.array(project).max(100).nullish(),
};
const flatCredential = {
  credential_type: z.enum(CREDENTIAL_TYPES).nullish(),
  access_key: z.string().max(1024).nullish(),
  access_secret: z.string().max(16_384).nullish(),
};
const nestedCredential = z.object({ ...flatCredential, type: z.enum(CREDENTIAL_TYPES).nullish() });

export const newRegistry = z.object({ ...common, credential: nestedCredential.nullish() });
export const registryChange = z.object({ ...common, ...flatCredential });
export const registryPing = registryChange.extend({ id: z.number().int().nullish() });

type Fields = z.output<typeof registryChange>;

export function draftOf(body: z.output<typeof newRegistry>): RegistryDraft {
  const { credential, ...fields } = body;
  if (!fields.name) throw invalid("name cannot be empty");
  const empty: RegistryDraft = { ...EMPTY_REGISTRY, name: fields.name, url: "" };
  return applyFields(empty, {
    ...fields,
    url: fields.url ?? "",
    credential_type: credential?.type ?? (credential ? "basic" : ""),
    access_key: credential?.access_key,
    access_secret: credential?.access_secret,
  });
}

/** Only what is given changes. */
export function applyFields<Draft extends RegistryDraft>(draft: Draft, fields: Fields): Draft {
  const url = fields.url === undefined || fields.url === null ? draft.url : normalizeUrl(fields.url);
  const secret = fields.access_secret === MASK ? undefined : fields.access_secret;
  // A stored secret belongs to the address that it was given for.
  const keptSecret = url === draft.url || draft.url === "" ? draft.accessSecret : "";
  return {
    ...draft,
    name: readName(fields.name ?? draft.name),
    type: readType(fields.type ?? draft.type),
    url,
    mirrors: fields.mirrors?.map(normalizeUrl) ?? draft.mirrors,
    hosts: fields.hosts ?? draft.hosts,
    credentialType: fields.credential_type ?? (secret && draft.credentialType === "" ? "basic" : draft.credentialType),
    accessKey: fields.access_key ?? draft.accessKey,
    accessSecret: secret ?? keptSecret,
    caCertificate: readCertificate(fields.ca_certificate ?? draft.caCertificate),
    insecure: fields.insecure ?? draft.insecure,
    enabled: fields.enabled ?? draft.enabled,
    priority: fields.priority ?? draft.priority,
    isDefault: fields.is_default ?? draft.isDefault,
    routes: fields.routes ?? draft.routes,
    prefix: readPrefix(fields.prefix ?? draft.prefix),
    projects:
      fields.projects?.map((one) => ({
        name: one.name,
        pattern: one.pattern ?? `${one.name}/*`,
        priority: one.priority,
        isDefault: one.is_default,
      })) ?? draft.projects,
    description: fields.description ?? draft.description,
  };
}

function readName(name: string): string {
  if (name.trim() === "") throw invalid("name cannot be empty");
  if (name.length > MAX_NAME) throw invalid(`the max length of name is ${MAX_NAME}`);
  return name;
}

function readType(type: string): string {
  if (type === "") return EMPTY_REGISTRY.type;
  if (!REGISTRY_TYPES.some((known) => known === type)) throw invalid(`unsupported registry type ${type.slice(0, 64)}`);
  return type;
}

function readPrefix(prefix: string): string {
  const problem = prefix === "" ? null : checkPath(prefix);
  if (problem !== null) throw invalid(`prefix: ${problem}`);
  return prefix;
}

function readCertificate(pem: string): string {
  const problem = checkCertificate(pem);
  if (problem !== null) throw invalid(problem);
  return pem;
}

/** `credential` shows that there is one, never what it is. */
export function describeRegistry(registry: Registry, options: { credential: boolean }): Record<string, unknown> {
  const hasCredential = registry.accessKey !== "" || registry.accessSecret !== "";
  const described = omitEmpty(
    {
      id: registry.id,
      name: registry.name,
      url: registry.url,
      type: registry.type,
      insecure: registry.insecure,
      ca_certificate: registry.caCertificate,
      description: registry.description,
      status: registry.status,
      creation_time: registry.createdAt.toISOString(),
      update_time: registry.updatedAt.toISOString(),
      mirrors: registry.mirrors,
      hosts: registry.hosts,
      enabled: registry.enabled,
      priority: registry.priority,
      is_default: registry.isDefault,
      routes: registry.routes.map(({ pattern, priority: order }) => ({ pattern, priority: order })),
      prefix: registry.prefix,
      projects: registry.projects.map((one) => ({
        name: one.name,
        pattern: one.pattern,
        priority: one.priority,
        is_default: one.isDefault,
      })),
      origin: registry.origin,
    },
    ["id", "mirrors", "hosts", "enabled", "priority", "is_default", "routes", "projects"],
  );
  if (!options.credential || !hasCredential) return described;
  const credential = omitEmpty({
    type: registry.credentialType || "basic",
    access_key: registry.accessKey,
    access_secret: registry.accessSecret === "" ? "" : MASK,
  });
  return inOrder({ ...described, credential });
}

/** What Harbor writes for a time that is not set. */
const NO_TIME = "0001-01-01T00:00:00.000Z";

/** Harbor shows itself as registry 0, with a credential that nobody can use. */
export function describeLocal(externalUrl: string): Record<string, unknown> {
  return {
    creation_time: NO_TIME,
    credential: { access_secret: MASK, type: "secret" },
    id: 0,
    name: "Local",
    status: "healthy",
    type: "harbor",
    update_time: NO_TIME,
    url: externalUrl,
  };
}

/** What filters a registry of the type can serve in replication, and what can start it. */
export function describeInfo(type: string, options: { local: boolean }): Record<string, unknown> {
  const isHarbor = type === "harbor";
  const resources = isHarbor || type === "azure-acr" ? ["image", "artifact"] : ["image"];
  const filters = ["name", "tag", ...(isHarbor && !options.local ? ["label"] : [])].map((name) => ({
    style: "input",
    type: name,
    values: null,
  }));
  return {
    ...(isHarbor || type === "azure-acr" ? { supported_copy_by_chunk: true } : {}),
    supported_resource_filters: [...filters, { style: "radio", type: "resource", values: resources }],
    supported_triggers: ["manual", "scheduled", ...(options.local ? ["event_based"] : [])],
    type,
  };
}

function invalid(message: string): SlipwayError {
  return new SlipwayError("BAD_REQUEST", { message });
}
