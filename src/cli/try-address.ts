// Which addresses `mlpipes-auth try` takes. Pure.

const loopbackHosts = new Set(['localhost', '127.0.0.1', '[::1]'])

/** Where a browser of this machine can come back to: a port of a loopback address, without query and fragment. */
export function isLoopbackUri(text: string): boolean {
  const url = URL.parse(text)
  return (
    url !== null && url.protocol === 'http:' && loopbackHosts.has(url.hostname) && url.search === '' && url.hash === ''
  )
}

/** An issuer (OpenID Connect Discovery §3): https, or http on this machine, without query and fragment. */
export function isIssuer(text: string): boolean {
  const url = URL.parse(text)
  if (url === null || url.username !== '' || url.search !== '' || url.hash !== '') return false
  return url.protocol === 'https:' || isLoopbackUri(text)
}
