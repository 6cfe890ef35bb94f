/** Marks failures with the registry that they came from. */
import { isSlipwayError, toSlipwayError } from "../../core/errors.ts";
import type { RegistryAdapter } from "../adapters/adapter.ts";
import { SideError } from "./plan/failure.ts";

export function atSource<T>(source: RegistryAdapter, work: () => Promise<T>): Promise<T> {
  return at({ side: "source", host: source.host }, work);
}

export function atTarget<T>(target: RegistryAdapter, work: () => Promise<T>): Promise<T> {
  return at({ side: "target", host: target.host }, work);
}

export async function at<T>(place: ConstructorParameters<typeof SideError>[0], work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof SideError || isSlipwayError(error, "CANCELLED")) throw error;
    throw new SideError(place, toSlipwayError(error));
  }
}
