// Stands between us and a child where the system cannot tie their lives together: when our end of its stdin closes, we are dead, and the
// child gets its signal. Arguments: signal, "uid:gid" or "-", command, arguments.
import { spawn } from "node:child_process";

const [deathSignal, user, command, ...args] = process.argv.slice(2);
const [uid, gid] = user === "-" ? [] : user.split(":").map(Number);
const child = spawn(command, args, { stdio: ["ignore", "inherit", "inherit"], ...(uid === undefined ? {} : { uid, gid }) });

child.once("error", (error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(127);
});
child.once("exit", (code, signal) => {
  if (signal === null) process.exit(code ?? 1);
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
});
for (const signal of ["SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP"]) process.on(signal, () => child.kill(signal));
process.stdin.resume();
for (const event of ["end", "error", "close"]) process.stdin.once(event, () => child.kill(deathSignal));
