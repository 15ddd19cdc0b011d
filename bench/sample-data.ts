// Registrations and queries for benchmarks: the same for the same seed, with the word frequencies of natural text.

/** The most frequent words first, as in English prose. */
const commonWords = `the of and to in for is on that with by as it from at are an this be or which can data agent not all its
  was has have you service when each using your other into one more any only their will based between through up than
  new time system user also over out if two first they per then must who both these what so how used team under such
  where after most made within before some being same while given every without many own may against during state next`.split(/\s+/)

const topicWords = `document invoice report customer order payment contract ticket email calendar database network server
  sensor camera image video audio speech translation language summary search index cache queue stream event alert metric
  log trace deploy build test release pipeline cluster container kubernetes cloud storage backup security vulnerability
  threat firewall identity access policy audit compliance risk fraud finance budget tax insurance claim health patient
  clinical medical research paper citation law legal court patent marketing campaign lead sales forecast inventory supply
  shipping logistics route fleet vehicle weather energy grid climate farm crop soil water robot drone factory machine
  maintenance quality inspection design engineering code review repository commit branch merge refactor debug compiler
  knowledge graph vector embedding model training inference prompt retrieval chat assistant voice meeting note schedule
  travel hotel flight booking restaurant recipe education course student exam tutor game music art photo writing editor
  summarise classify extract detect monitor predict recommend optimise validate verify transform convert annotate index
  notify escalate approve reconcile transcribe moderate rank cluster label anonymise encrypt decrypt archive restore
  european quarterly weekly nightly regional internal external public private automated interactive reliable fast small
  large structured unstructured historical incoming outgoing failed pending overdue duplicate missing unusual suspicious`.split(/\s+/)

const capabilities = ['text-summarization', 'translation', 'code-review', 'document extraction', 'image-classification',
  'speech to text', 'anomaly-detection', 'log-analysis', 'metrics', 'alerting', 'sentiment-analysis', 'question answering',
  'web-search', 'data-cleaning', 'report-generation', 'scheduling', 'email-triage', 'invoice-processing', 'fraud-detection',
  'forecasting', 'route-planning', 'inventory', 'vulnerability-scan', 'penetration testing', 'config-audit', 'backup',
  'load-testing', 'regression testing', 'dns-lookup', 'packet-capture', 'topology discovery', 'policy-check', 'ocr', 'qa',
  'ml inference', 'vector-search', 'knowledge-graph', 'chat', 'voice-assistant', 'sql-generation', 'schema-migration']
const agentTypes = ['automation', 'monitoring', 'testing', 'security', 'networking']
const regions = ['eu-west', 'eu-central', 'us-east', 'us-west', 'ap-south', 'ap-northeast', 'sa-east']
const teams = ['Platform', 'Research', 'Payments', 'Support', 'Data', 'Security', 'Operations', 'Growth']
const syllables = `ba be bi bo ca ce co da de di do fa fe fi ga ge go ha he in ka la le li lo ma me mi mo na ne no or pa pe pi
  ra re ri ro sa se si so ta te ti to un va ve vi vo za zen tor lis mar ten ver con`.split(/\s+/)
const vocabularySize = 20_000

/** Mulberry32: random numbers from 0 to 1, the same for the same seed. */
function randomFrom (seed: number) {
  let state = seed >>> 0
  return function random () {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** Prose first, then the topics, then generated rare words. */
function makeVocabulary (): string[] {
  const random = randomFrom(7)
  const words = new Set([...commonWords, ...topicWords])
  while (words.size < vocabularySize) {
    const length = 2 + Math.floor(random() * 3)
    words.add(Array.from({ length }, () => syllables[Math.floor(random() * syllables.length)]).join(''))
  }
  return [...words]
}

const vocabulary = makeVocabulary()

/** Zipf-Mandelbrot law: the word of rank r has a weight of 1 / (r + 2.7). */
const cumulative = vocabulary.reduce<number[]>((sums, _word, rank) => {
  sums.push((sums.at(-1) ?? 0) + 1 / (rank + 2.7))
  return sums
}, [])

/** Draws random words, items of a list, whole numbers and texts. */
class Source {
  readonly random: () => number

  constructor (seed: number) {
    this.random = randomFrom(seed)
  }

  below (limit: number): number {
    return Math.floor(this.random() * limit)
  }

  item<T> (list: readonly T[]): T {
    return list[this.below(list.length)]!
  }

  /** Prefers items near the front of the list. */
  popular<T> (list: readonly T[]): T {
    return list[Math.floor(this.random() ** 2 * list.length)]!
  }

  word (): string {
    const target = this.random() * cumulative.at(-1)!
    let [low, high] = [0, cumulative.length - 1]
    while (low < high) {
      const middle = (low + high) >> 1
      if (cumulative[middle]! < target) low = middle + 1
      else high = middle
    }
    return vocabulary[low]!
  }

  text (words: number): string {
    return Array.from({ length: words }, () => this.word()).join(' ')
  }

  /** A word of the topics. */
  topic (): string {
    return this.popular(topicWords)
  }
}

const capital = (word: string) => word[0]!.toUpperCase() + word.slice(1)

function registration (source: Source, index: number) {
  const id = `agent-${String(index).padStart(6, '0')}`
  const owned = new Set(Array.from({ length: 1 + source.below(5) }, () => source.popular(capabilities)))
  const base = {
    agent_id: id,
    name: `${capital(source.topic())} ${capital(source.topic())}`.slice(0, 32),
    agent_type: source.popular(agentTypes),
    endpoint: `https://${id}.${source.item(regions)}.agents.example.com:8443/arcp`,
    capabilities: [...owned],
    context_brief: `${capital(source.topic())} agent: ${source.text(25 + source.below(30))}.`.slice(0, 1000),
    version: `${source.below(4)}.${source.below(20)}.${source.below(10)}`,
    owner: `${source.item(teams)} team`,
    public_key: Array.from({ length: 44 }, () => source.below(36).toString(36)).join(''),
    metadata: {
      region: source.item(regions),
      model: `${source.item(['llama', 'mistral', 'gemma', 'qwen'])}-${1 + source.below(70)}b`,
      tags: [source.topic(), source.topic(), source.word()],
      description: source.text(8 + source.below(10)),
      max_concurrency: 1 + source.below(64)
    },
    communication_mode: source.item(['remote', 'remote', 'hybrid', 'local'] as const),
    features: [source.item(['streaming', 'batch', 'webhooks', 'tools']), `${source.topic()}-${source.topic()}`]
  }
  return source.random() < 0.3 ? { ...base, ai_context: source.text(40 + source.below(60)) } : base
}

/** `n` registrations of about 1 KB of JSON each. */
export function * agents (n: number, seed: number) {
  const source = new Source(seed)
  for (let index = 0; index < n; index++) yield registration(source, index)
}

/** Bodies of registrations for the tokens that bench/servers.ts creates. */
export function newAgentBodies (n: number): string[] {
  return Array.from(agents(n, 2), (agent, index) => JSON.stringify({ ...agent, agent_id: `new-agent-${index}` }))
}

/** A few words, as people type them: sometimes a capability, the beginning of a word, or a typing error. */
function query (source: Source): string {
  const kind = source.random()
  if (kind < 0.15) return source.popular(capabilities)
  const words = [source.topic(), ...Array.from({ length: source.below(6) }, () => source.random() < 0.5 ? source.topic() : source.word())]
  const last = words.pop()!
  if (kind < 0.3 && last.length > 4) return [...words, last.slice(0, 3 + source.below(2))].join(' ')
  if (kind < 0.4 && last.length > 5) return [...words, last.slice(0, 2) + last[3] + last[2] + last.slice(4)].join(' ')
  return [...words, last].join(' ')
}

/** `n` queries for the registrations of `agents`. */
export function * queries (n: number, seed: number): Generator<string> {
  const source = new Source(seed)
  for (let index = 0; index < n; index++) yield query(source)
}
