// Names resolved beside the loop. getaddrinfo(3) respects hosts, nsswitch and resolv.conf, and may block for as long as it
// likes, so it runs on threads of its own: at most four, started when they are needed. They are the only threads of a worker,
// and the only lock of a worker is in this file. Answers come back as an event: a descriptor turns readable.

import CLinux
import Config
import DequeModule
import Glibc
import Linux
import SystemPackage

/// Why a name has no address.
struct LookupFailure: Error, Equatable, Sendable, CustomStringConvertible {
    enum Reason: Error, Equatable, Sendable {
        /// What getaddrinfo(3) says.
        case resolver(code: Int32)
        /// What the system said to it, or to us when a thread was to be started.
        case system(Errno)
        /// Found, but with no address we could connect to.
        case noAddress
        /// Too many names wait to be looked up, or too many connections for this one.
        case overloaded
        /// Its turn came after everybody's patience had ended.
        case tooLate
    }

    let name: String
    let reason: Reason

    var description: String {
        switch reason {
        case .resolver(let code): "\(name): \(unsafe String(cString: gai_strerror(code)))"
        case .system(let errno): "\(name): \(errno)"
        case .noAddress: "\(name): no address"
        case .overloaded: "\(name): too many look-ups are waiting"
        case .tooLate: "\(name): the resolver did not get to it in time"
        }
    }
}

/// Looks names up. There is no cache: that is the resolver's and its administrator's business. Equal names asked for while one is
/// being looked up share its answer. Nothing is cancelled: who does not want an answer any more ignores it.
struct Resolver: ~Copyable {
    enum Started: Equatable {
        /// `collect` will bring the answer.
        case accepted
        /// It will not.
        case refused(LookupFailure)
    }

    /// Looks one name up and may block. The addresses have the port 0 and are in the order in which to try them.
    typealias Lookup = @Sendable (String) -> Result<[SocketAddress], LookupFailure.Reason>

    private let lookups: Lookups

    /// Another `lookup` is for tests. No thread is started yet.
    init(
        threadsMax: Int = Limits.resolverThreadsMax, waitingMax: Int = Limits.waitingLookupsMax,
        requestsMax: Int = Self.requestsMax, lookup: @escaping Lookup = { SystemLookup.addresses(of: $0) }
    ) throws(Errno) {
        lookups = try Lookups(
            threadsMax: threadsMax, waitingMax: waitingMax, requestsMax: requestsMax, lookup: lookup)
    }

    /// Waiting for answers all together, half a MiB of them. One name may have its threads' share: then a name that hangs for
    /// ever, and those who gave up waiting for it, do not take the places of other names.
    static var requestsMax: Int { 65_536 }

    /// Readable when there is something to collect.
    var raw: Int32 { lookups.event.raw }

    /// Starts looking a name up. `requester` comes back with the answer; nobody waits for it beyond `deadline`
    /// (milliseconds of the monotonic clock): if its turn has not come by then, it is skipped.
    func start(_ name: String, requester: UInt64, deadline: Int64 = .max) -> Started {
        guard let reason = lookups.start(name, requester, deadline) else { return .accepted }
        return .refused(LookupFailure(name: name, reason: reason))
    }

    /// All answers that have come since the last time.
    func collect() -> [(requester: UInt64, result: Result<[SocketAddress], LookupFailure>)] { lookups.collect() }

    /// The threads end; one that hangs in a look-up does so when it returns, or with the process.
    deinit { lookups.stop() }
}

/// What the loop and the threads share, behind one lock.
@safe private final class Lookups: @unchecked Sendable {
    /// One name that is waiting or being looked up.
    private struct Shared {
        var requesters: [UInt64]
        /// The most patient requester's.
        var deadline: Int64
    }

    typealias Answer = (requester: UInt64, result: Result<[SocketAddress], LookupFailure>)

    /// Counts up when an answer is there.
    let event: Descriptor
    private let threadsMax: Int
    private let waitingMax: Int
    private let requestsMax: Int
    private let lookup: Resolver.Lookup
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let arrival: UnsafeMutablePointer<pthread_cond_t>

    // Everything from here on is touched with the lock held.
    private var waiting = Deque<String>()
    private var open: [String: Shared] = [:]
    private var requests = 0
    private var answers: [Answer] = []
    private var threads = 0
    private var idleThreads = 0
    private var isStopping = false

    init(threadsMax: Int, waitingMax: Int, requestsMax: Int, lookup: @escaping Resolver.Lookup) throws(Errno) {
        let raw = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard raw >= 0 else { throw Errno(rawValue: errno) }
        event = Descriptor(owning: raw)
        (self.threadsMax, self.waitingMax, self.requestsMax, self.lookup) = (
            threadsMax, waitingMax, requestsMax, lookup
        )
        unsafe mutex = .allocate(capacity: 1)
        unsafe arrival = .allocate(capacity: 1)
        unsafe pthread_mutex_init(mutex, nil)
        unsafe pthread_cond_init(arrival, nil)
        tp_share_one_arena()
    }

    deinit {
        // The last thread has let go of this, so nobody waits.
        unsafe pthread_cond_destroy(arrival)
        unsafe pthread_mutex_destroy(mutex)
        unsafe arrival.deallocate()
        unsafe mutex.deallocate()
    }

    private func locked<Result>(_ body: () -> Result) -> Result {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        return body()
    }

    // MARK: The loop's side

    /// Nil: accepted.
    func start(_ name: String, _ requester: UInt64, _ deadline: Int64) -> LookupFailure.Reason? {
        locked {
            guard requests < requestsMax else { return .overloaded }
            // Not bound as a whole: a second owner of the array would have it copied for each requester.
            if let count = open[name]?.requesters.count, let patience = open[name]?.deadline {
                guard count < max(1, requestsMax / threadsMax) else { return .overloaded }
                open[name]?.deadline = max(patience, deadline)
                open[name]?.requesters.append(requester)
                requests += 1
                return nil
            }
            // Those that a thread will take up at once do not wait.
            guard waiting.count < waitingMax + idleThreads + (threadsMax - threads) else { return .overloaded }
            if waiting.count >= idleThreads, threads < threadsMax {
                let code = startThread()
                guard code == 0 || threads > 0 else { return .system(Errno(rawValue: code)) }
            }
            waiting.append(name)
            open[name] = Shared(requesters: [requester], deadline: deadline)
            requests += 1
            unsafe pthread_cond_signal(arrival)
            return nil
        }
    }

    func collect() -> [Answer] {
        locked {
            var count: UInt64 = 0
            _ = unsafe read(event.raw, &count, 8)
            defer { answers = [] }
            return answers
        }
    }

    func stop() {
        locked {
            isStopping = true
            waiting = []
            unsafe pthread_cond_broadcast(arrival)
        }
    }

    /// Starts a detached thread that holds on to this. Returns 0 or an errno.
    private func startThread() -> Int32 {
        var attributes = pthread_attr_t()
        unsafe pthread_attr_init(&attributes)
        defer { unsafe pthread_attr_destroy(&attributes) }
        unsafe pthread_attr_setstacksize(&attributes, Self.stackBytes)
        unsafe pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        let argument = unsafe Unmanaged.passRetained(self)
        var thread = pthread_t()
        let code = unsafe pthread_create(&thread, &attributes, lookUpNames, argument.toOpaque())
        if code == 0 { threads += 1 } else { unsafe argument.release() }
        return code
    }

    /// What glibc's modules need many times; the default would be 8 MiB of address space each.
    private static let stackBytes = 262_144

    // MARK: The threads' side

    /// A thread's life: takes one name after the other until it is told to stop.
    func run() {
        // Signals are the loop's.
        var all = sigset_t()
        unsafe sigfillset(&all)
        unsafe pthread_sigmask(SIG_SETMASK, &all, nil)
        while let name = next() {
            let result = lookup(name)
            locked { finish(name, result) }
        }
    }

    /// The next name whose requesters still wait; nil when the thread has to end.
    private func next() -> String? {
        locked { () -> String? in
            while true {
                while waiting.isEmpty, !isStopping {
                    idleThreads += 1
                    unsafe pthread_cond_wait(arrival, mutex)
                    idleThreads -= 1
                }
                guard !isStopping, let name = waiting.popFirst() else {
                    threads -= 1
                    return nil
                }
                if let deadline = open[name]?.deadline, deadline < Instant.now().milliseconds {
                    finish(name, .failure(.tooLate))
                } else {
                    return name
                }
            }
        }
    }

    /// Hands an answer to all who asked; the lock is held.
    private func finish(_ name: String, _ result: Result<[SocketAddress], LookupFailure.Reason>) {
        guard let shared = open.removeValue(forKey: name), !isStopping else { return }
        requests -= shared.requesters.count
        let result = result.mapError { LookupFailure(name: name, reason: $0) }
        for requester in shared.requesters { answers.append((requester, result)) }
        var one: UInt64 = 1
        _ = unsafe write(event.raw, &one, 8)
    }
}

/// The start of a thread, given a retained `Lookups`.
private func lookUpNames(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    if let argument = unsafe argument { unsafe Unmanaged<Lookups>.fromOpaque(argument).takeRetainedValue().run() }
    return nil
}

/// getaddrinfo(3).
enum SystemLookup {
    /// Blocks. Only families the machine has addresses of, unless the name has no other.
    static func addresses(of name: String) -> Result<[SocketAddress], LookupFailure.Reason> {
        let result = ask(name, flags: AI_ADDRCONFIG)
        // Its addresses are all of a family that only the loopback interface has.
        if case .failure(.resolver(code: Int32(TP_EAI_ADDRFAMILY))) = result { return ask(name, flags: 0) }
        return result
    }

    private static func ask(_ name: String, flags: Int32) -> Result<[SocketAddress], LookupFailure.Reason> {
        var hints = unsafe addrinfo()
        unsafe hints.ai_family = AF_UNSPEC
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        unsafe hints.ai_flags = flags
        var list: UnsafeMutablePointer<addrinfo>?
        let code = unsafe getaddrinfo(name, nil, &hints, &list)
        guard code == 0 else {
            return .failure(code == EAI_SYSTEM ? .system(Errno(rawValue: errno)) : .resolver(code: code))
        }
        defer { unsafe freeaddrinfo(list) }
        var found: [SocketAddress] = []
        var next = unsafe list
        while let entry = unsafe next?.pointee {
            unsafe next = entry.ai_next
            var storage = sockaddr_storage()
            guard let address = unsafe entry.ai_addr,
                unsafe Int(entry.ai_addrlen) <= MemoryLayout.size(ofValue: storage)
            else { continue }
            unsafe withUnsafeMutableBytes(of: &storage) { bytes in
                unsafe bytes.copyMemory(from: UnsafeRawBufferPointer(start: address, count: Int(entry.ai_addrlen)))
            }
            if let address = unsafe SocketAddress(storage, length: entry.ai_addrlen), !found.contains(address) {
                found.append(address)
            }
        }
        return found.isEmpty ? .failure(.noAddress) : .success(alternating(found))
    }

    /// The addresses in their order of preference, but with the families taking turns, beginning with the preferred one: a
    /// family that does not work costs one head start, not one for each address (RFC 8305, section 4).
    static func alternating(_ addresses: [SocketAddress]) -> [SocketAddress] {
        guard let preferred = addresses.first?.family else { return [] }
        let first = addresses.filter { $0.family == preferred }
        let second = addresses.filter { $0.family != preferred }
        var result: [SocketAddress] = []
        for index in 0..<max(first.count, second.count) {
            if index < first.count { result.append(first[index]) }
            if index < second.count { result.append(second[index]) }
        }
        return Array(result.prefix(Limits.addressesMax))
    }
}
