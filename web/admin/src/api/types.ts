/** Short names of the API types, which are generated from `docs/openapi.json`. */

import type { components, operations } from './generated/openapi';

type Schemas = components['schemas'];

export type Role = Schemas['Role'];
export type Identity = Schemas['IdentityResponse'];
export type User = Schemas['UserResponse'];
export type Flag = Schemas['FeatureFlagResponse'];
/** Flag whose definition the server cannot read, for example because a newer version wrote it. */
export type UnreadableFlag = Schemas['UnreadableFeatureFlagResponse'];
export type AnyFlag = Flag | UnreadableFlag;
export type FlagType = Schemas['FlagType'];
export type Serve = Schemas['Serve'];
export type Variant = Schemas['Variant'];
export type TargetingRule = Schemas['TargetingRule'];
export type Condition = Schemas['Condition'];
export type Operator = Schemas['Operator'];
export type UserOverride = Schemas['UserOverrideResponse'];
export type OverrideStatus = Schemas['OverrideStatus'];
export type OverrideDetail = Schemas['OverrideDetail'];
export type FindingCode = Schemas['FindingCode'];
export type ScheduledChange = Schemas['ScheduledChangeResponse'];
export type ScheduleStatus = Schemas['ScheduleStatus'];
export type UserFlags = Schemas['UserFlagsResponse'];
export type UserFlagResult = Schemas['UserFlagResult'];
export type Explanation = Schemas['ExplanationResponse'];
export type LayerExplanation = Schemas['LayerExplanation'];
export type LayerName = Schemas['LayerName'];
export type NotMatchedReason = Schemas['NotMatchedReason'];
export type Source = Schemas['Source'];
export type BulkAction = Schemas['BulkAction'];
export type BulkFilter = Schemas['BulkOverrideFilter'];
export type BulkRequest = Schemas['BulkOverrideRequest'];
export type BulkOutcome = Schemas['BulkOutcome'];
export type BulkResponse = Schemas['BulkOverrideResponse'];
export type CreateOverride = Schemas['CreateOverrideRequest'];
export type PutOverride = Schemas['PutOverrideRequest'];
export type PatchOverride = Schemas['PatchOverrideRequest'];
export type PatchFlag = Schemas['PatchFlagRequest'];
export type CreateUser = Schemas['CreateUserRequest'];
export type PatchUser = Schemas['PatchUserRequest'];
export type OwnFlagResult = Schemas['OwnFlagResult'];
export type OwnOverride = Schemas['OwnOverride'];
export type ChangedResource = Schemas['ChangedResource'];
export type ProblemBody = Schemas['ProblemBody'];
export type FieldError = Schemas['FieldError'];
export type AuditEntry = Schemas['AuditEntryResponse'];

/** Query parameters of an API operation. */
export type QueryOf<Name extends keyof operations> = NonNullable<operations[Name]['parameters']['query']>;

export interface Page<Item> {
  readonly items: readonly Item[];
  readonly next_cursor: string | null;
  readonly total: number;
  readonly total_is_exact: boolean;
}

export function isReadable(flag: AnyFlag): flag is Flag {
  return !('unreadable' in flag);
}

/** JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
