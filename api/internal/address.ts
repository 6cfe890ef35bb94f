/** Where processes on other hosts reach this one: the address it listens on, or one of the host's own when it listens on all. */
import { networkInterfaces } from "node:os";

export function reachableUrl({ host, port, url }: { host: string; port: number; url: string }): string {
  if (host !== "0.0.0.0" && host !== "::") return url;
  const outside = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find((address) => !address.internal && address.family === "IPv4");
  return outside ? `${new URL(url).protocol}//${outside.address}:${port}` : url;
}
