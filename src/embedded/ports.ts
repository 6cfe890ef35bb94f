/** Free and taken ports of this machine. */
import { createServer } from "node:net";
import { SlipwayError } from "../core/errors.ts";

/** A port that is free now. Somebody else may take it, so the user of it must be ready to fail. */
export async function freePort(host = "127.0.0.1"): Promise<number> {
  return listenOnce(0, host);
}

export async function isPortFree(port: number, host: string): Promise<boolean> {
  try {
    await listenOnce(port, host);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EADDRINUSE") return false;
    throw error;
  }
}

/**
 * With reusePort several unrelated programs can listen on one port without noticing, so the owner looks once without it before anybody
 * listens.
 */
export async function assertPortFree(port: number, host: string): Promise<void> {
  if (port === 0) return;
  try {
    await listenOnce(port, host);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason = code === "EADDRINUSE" ? "is taken by another program" : `cannot be opened (${code ?? String(error)})`;
    throw new SlipwayError("CONFLICT", { message: `port ${port} on ${host} ${reason}`, detail: { port, host }, cause: error });
  }
}

function listenOnce(port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen({ port, host, exclusive: true }, () => {
      const address = server.address();
      const actual = address !== null && typeof address === "object" ? address.port : port;
      server.close(() => resolve(actual));
    });
  });
}
