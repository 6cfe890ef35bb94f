/** The cron text and the time zone of a policy, as clients of Harbor know them: six fields, of which the first is 0. */
import { SlipwayError } from "../core/errors.ts";
import { parseCron } from "../temporal/cron.ts";

const MAX_CRON = 256;

/** Throws BAD_REQUEST for what is no cron text of a policy. */
export function checkCron(cron: string): string {
  if (cron === "") throw invalid("the cron string cannot be empty when the trigger type is scheduled");
  if (cron.length > MAX_CRON || !isSixFields(cron)) throw invalid(`invalid cron string for scheduled trigger: ${cron.slice(0, MAX_CRON)}`);
  const [seconds, minutes] = cron.split(" ");
  if (seconds !== "0") throw invalid("the 1st field (indicating Seconds of time) of the cron setting must be 0");
  if (minutes === "*") throw invalid("* is not allowed for the Minutes field of the cron setting of replication policy");
  return cron;
}

/** A time zone in front is part of the grammar, and fails at the first field. */
function isSixFields(cron: string): boolean {
  const text = cron.replace(/^(?:CRON_)?TZ=\S+\s+/, "").trim();
  if (text.split(/\s+/).length !== 6) return false;
  try {
    parseCron(text);
    return true;
  } catch {
    return false;
  }
}

/** Throws BAD_REQUEST for what is no name of the time zone database. */
export function checkTimezone(timezone: string): string {
  if (timezone.length > 64 || canonicalTimezone(timezone) === null) throw invalid(`unknown time zone: ${timezone.slice(0, 64)}`);
  return timezone;
}

/** The spelling that every reader of the database knows; null for what it does not have. */
export function canonicalTimezone(timezone: string): string | null {
  if (!/^[A-Za-z]/.test(timezone)) return null;
  try {
    return new Intl.DateTimeFormat("en", { timeZone: timezone }).resolvedOptions().timeZone;
  } catch {
    return null;
  }
}

function invalid(message: string): SlipwayError {
  return new SlipwayError("BAD_REQUEST", { message });
}
