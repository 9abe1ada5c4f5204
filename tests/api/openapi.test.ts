// The OpenAPI document says what the server does: every route, nothing else, and references that lead somewhere. That
// answers are as it says is held at every call of the other tests here (support.ts).
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { adminOperations } from '../../src/admin/operations.ts'
import { contract } from '../../src/api/openapi.ts'
import { axe, launchBrowser, newPage } from '../support/browser.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
const anObject = z.record(z.string(), z.unknown())
const shape = z.object({
  openapi: z.string(),
  servers: z.array(z.object({ url: z.string() })),
  paths: z.record(z.string(), z.record(z.string(), anObject)),
  components: z.object({ schemas: anObject, securitySchemes: anObject }),
})
let document: z.output<typeof shape>
beforeAll(async () => {
  server = await startServer('pglite')
  document = shape.parse(await (await fetch(`${server.issuer}/api/openapi.json`)).json())
})
afterAll(() => server.close())

const operations = () =>
  Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ row: `${method.toUpperCase()} ${path}`, operation })),
  )

describe('the OpenAPI document', () => {
  it('is 3.1 and names this server', () => {
    expect(document.openapi).toMatch(/^3\.1\./)
    expect(document.servers).toEqual([{ url: server.issuer }])
  })

  it('has every route of the API and no other', () => {
    const routes = server.server.routes
      .filter(
        ({ method, url }) => /^\/api\/(auth|admin|audit)(\/|$)/.test(url) && method !== 'HEAD' && method !== 'OPTIONS',
      )
      .map(({ method, url }) => `${method} ${url.replace(/:(\w+)/g, '{$1}')}`)
    expect(
      operations()
        .map(({ row }) => row)
        .sort(),
    ).toEqual(routes.sort())
  })

  it('gives each operation an id of its own, words, and what it is secured with', () => {
    const ids = operations().map(({ operation }) => operation['operationId'])
    expect(new Set(ids).size).toBe(ids.length)
    for (const { row, operation } of operations()) {
      expect(operation['summary'], row).toMatch(/\S/)
      expect(operation['description'], row).toMatch(/\S/)
      const ways = operation['security'] as Record<string, unknown>[]
      expect(ways.length, row).toBeGreaterThan(0)
      for (const way of ways) {
        // A browser proves that a change comes from our page; a token is proof enough.
        if (!('oauth2' in way)) expect('csrfToken' in way, row).toBe(!row.startsWith('GET'))
        for (const scheme of Object.keys(way)) expect(document.components.securitySchemes).toHaveProperty(scheme)
      }
    }
  })

  it('takes no member that it does not name', () => {
    for (const { row, operation } of operations()) {
      if (!('requestBody' in operation)) continue
      const named = /"schema":\{"\$ref":"#\/components\/schemas\/(\w+)"\}/.exec(
        JSON.stringify(operation['requestBody']),
      )?.[1]
      const body = named === undefined ? operation['requestBody'] : document.components.schemas[named]
      expect(JSON.stringify(body), row).toContain('"additionalProperties":false')
    }
  })

  it('refers only to what it holds', () => {
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g)].map(([, to]) => to ?? '')
    expect(references.length).toBeGreaterThan(10)
    for (const to of references) {
      expect(to).toMatch(/^#\/components\/schemas\/\w+$/)
      expect(Object.keys(document.components.schemas)).toContain(to.split('/').at(-1))
    }
    expect(JSON.stringify(document)).not.toMatch(/\$defs|\$schema/)
  })

  it('says when to come back wherever tries are counted', () => {
    for (const { row, operation } of operations()) {
      const throttled = (operation['responses'] as Record<string, Record<string, unknown>>)['429']
      if (throttled) expect(throttled['headers'], row).toHaveProperty('Retry-After')
    }
  })
})

describe('the words about it', () => {
  it('name every operation in the guide', () => {
    const guide = readFileSync('docs/guides/api.md', 'utf8')
    for (const { method, path } of contract) expect(guide).toContain(`${method} ${path}`)
  })

  it('are a page that anybody can read, without a script of its own', async () => {
    const browser = await launchBrowser()
    const watched = await newPage(browser, { javaScriptEnabled: true })
    await watched.page.goto(`${server.issuer}/api/docs`)
    for (const { method, path } of [...contract, ...adminOperations])
      expect(await watched.page.getByRole('heading', { name: `${method} ${path}`, exact: true }).count(), path).toBe(1)
    for (const source of await watched.page
      .locator('script')
      .evaluateAll((all) => all.map((one) => one.getAttribute('src'))))
      expect(source).toMatch(/^\/assets\//)
    expect(await axe(watched.page)).toEqual([])
    expect(watched.complaints).toEqual([])
    await watched.close()
    await browser.close()
  })
})
