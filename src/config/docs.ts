/** docs/configuration.md, made from the schema; a test and `npm run check` compare the file with this. */
import type { Key } from "./key.ts";
import { SCHEMA } from "./schema.ts";

const INTRODUCTION = `# Configuration

<!-- Made by \`npm run slipway -- config docs\`; do not edit. -->

Settings come from the environment and from a TOML file that \`SLIPWAY_CONFIG\` names; the environment wins. Unknown keys, wrong types and
contradictions stop the start with one line for each. Roles are arguments: \`npm start -- --role proxy --role api\`.
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
