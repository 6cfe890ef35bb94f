/** What a person sees when the program is up: where things are, and what deserves a warning. */
import type { App } from "../src/app.ts";

export function printBanner(app: App, where: { url: string; temporalUiUrl: string | null }): void {
  const { settings } = app.config;
  const url = settings.server.external_url ?? where.url.replace("0.0.0.0", "localhost").replace("[::]", "localhost");
  // Given roles are in every line already.
  app.logger.info({ url, ...(app.config.rolesGiven ? {} : { roles: [...app.config.roles] }) }, "ready");
  if (settings.auth.registry === "open") {
    app.logger.warn({}, "SLIPWAY_REGISTRY_AUTH=open: anyone who reaches this port can pull and push");
  }
  if (app.config.rolesGiven) return;
  const lines = [`  registry     ${url}`];
  if (where.temporalUiUrl) lines.push(`  Temporal UI  ${where.temporalUiUrl}`);
  lines.push(`  admin        ${describeAdmin(app)}`);
  process.stdout.write(`\n${lines.join("\n")}\n\n`);
}

function describeAdmin(app: App): string {
  const { admin } = app;
  if (!admin.created) return "user `admin`, with the password of the first start";
  if (admin.generatedPassword === null) return "user `admin`, with the password of SLIPWAY_ADMIN_PASSWORD";
  return `user \`admin\`, password ${admin.generatedPassword} (kept in ${admin.file})`;
}
