/** docs/configuration.md, made from the schema; a test and `npm run check` compare the file with this. */
import type { Key } from "./key.ts";
import { SCHEMA } from "./schema.ts";
import { UPSTREAM_KEY_DOCS } from "./upstreams.ts";

const INTRODUCTION = `# Configuration

<!-- Made by \`npm run slipway -- config docs\`; do not edit. -->

Settings come from the environment and from a TOML file that \`SLIPWAY_CONFIG\` names; the environment wins. Unknown keys, wrong types and
contradictions stop the start with one line for each. Roles are arguments: \`npm start -- --role proxy --role api\`.
`;

const UPSTREAMS = `## [[upstreams]]

Registries to pull through, in the file only. Each becomes an upstream and a proxy project at the start; what is changed in the file is changed at the next start, what
is removed from it is switched off and keeps its content. Upstreams made by REST are not touched, and one of the same name wins with a warning. Without a
configuration file nothing of this happens.

\`\`\`toml
[[upstreams]]
name = "hub"
url = "https://registry-1.docker.io"
hosts = ["docker.io"]
username = "robot"
password_file = "/run/secrets/hub"

[[upstreams]]
name = "corp"
url = "https://harbor.corp.example"
is_default = true
routes = [{ pattern = "team-*/**", priority = 10 }]
projects = [{ name = "team-a" }, { name = "misc", pattern = "*", is_default = true }]
\`\`\`

Files of Harbor Cache are read as they are, with \`[upstream]\` for a single one; keys that have no meaning here are named once in the log.

| key | meaning |
|---|---|
`;

export function renderConfigurationDocs(): string {
  const parts = [INTRODUCTION];
  for (const [section, keys] of Object.entries(SCHEMA as Record<string, Record<string, Key<unknown>>>)) {
    parts.push(`## [${section}]\n`);
    parts.push("| key in the file | variable | type | default | meaning |\n|---|---|---|---|---|");
    for (const [name, key] of Object.entries(keys)) {
      parts.push(`| \`${name}\` | \`${key.env}\` | ${describeType(key)} | ${describeDefault(key)} | ${key.doc.replaceAll("|", "\\|")} |`);
    }
    parts.push("");
  }
  parts.push(
    UPSTREAMS +
      Object.entries(UPSTREAM_KEY_DOCS)
        .map(([name, doc]) => `| \`${name}\` | ${doc.replaceAll("|", "\\|")} |`)
        .join("\n"),
  );
  return `${parts.join("\n").trimEnd()}\n`;
}

function describeType(key: Key<unknown>): string {
  const range = key.min !== undefined || key.max !== undefined ? ` ${key.min ?? ""}..${key.max ?? ""}` : "";
  const type = key.kind === "choice" ? (key.choices ?? []).map((choice) => `\`${choice}\``).join(", ") : key.kind;
  return `${type}${range}${key.unit ? ` (${key.unit})` : ""}${key.secret ? ", secret" : ""}`;
}

function describeDefault(key: Key<unknown>): string {
  if (key.default === null) return "unset";
  if (Array.isArray(key.default)) return key.default.length === 0 ? "empty" : `\`${key.default.join(",")}\``;
  return `\`${String(key.default)}\``;
}
