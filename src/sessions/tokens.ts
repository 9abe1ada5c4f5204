// What a person's access consists of in oidc_payloads, as every ending asks for it in SQL.

/** Codes and tokens. A device code is a person's from when they let the device in. */
const personalModels = `('AccessToken', 'RefreshToken', 'AuthorizationCode', 'DeviceCode')`
export const isPersonal = `model in ${personalModels}`

/** Whether a row is a token that outlives its session. A code never does. */
export const isOffline = `(model not in ('AuthorizationCode', 'DeviceCode')
    and 'offline_access' = any(string_to_array(coalesce(payload ->> 'scope', ''), ' ')))`
