// Which of tproxy's processes this is: the arbiter, or a worker that an arbiter has spawned.

import Config
import Control
import Glibc
import Linux
import Logging
import Logs
import Proxy
import Supervisor
import SystemPackage

/// A role of this executable.
enum Role {
    /// Takes up the role and returns the exit status. A worker never touches the command line: the parser alone would
    /// double its memory.
    static func takeUp() -> Int32 {
        do throws(InheritanceError) {
            switch try StartedAs.take() {
            case .worker(let inheritance): return beWorker(inheritance)
            case .arbiter(let inheritance): return readOptions(startedBy: inheritance)
            case .program: return readOptions(startedBy: nil)
            }
        } catch {
            say("tproxy: \(error)", to: STDERR_FILENO)
            return WorkerProcess.bootFailureStatus
        }
    }

    private static func beWorker(_ inheritance: consuming WorkerInheritance) -> Int32 {
        // Started from /proc/self/exe it would be called "exe" by top and pgrep.
        ProcessTitle.setName(Product.name)
        return WorkerProcess.run(inheritance)
    }

    private static func readOptions(startedBy origin: SuccessionInheritance?) -> Int32 {
        let invocation = Invocation(arguments: CommandLine.arguments, environment: Linux.Process.environment())
        switch CommandLineOptions.parse(
            arguments: Array(CommandLine.arguments.dropFirst()), environment: environment())
        {
        case .serve(let settings): return beArbiter(settings, invocation, startedBy: origin)
        case .answer(let text):
            say(text, to: STDOUT_FILENO)
            return 0
        case .refuse(let text):
            origin?.channel.send(.bootFailed(text))
            say(text, to: STDERR_FILENO)
            return CommandLineOptions.wrongOptionsStatus
        }
    }

    private static func beArbiter(
        _ settings: Settings, _ invocation: Invocation, startedBy origin: SuccessionInheritance?
    ) -> Int32 {
        do throws(Errno) {
            let logFile = try LogFile(settings)
            return Arbiter.run(
                settings, invocation, startedBy: origin, log: Logger(logFile, .arbiter, settings), logFile: logFile)
        } catch {
            let reason = "the log \(settings.logFile) cannot be opened: \(error)"
            origin?.channel.send(.bootFailed(reason))
            say("tproxy: \(reason)", to: STDERR_FILENO)
            return WorkerProcess.bootFailureStatus
        }
    }

    private static func environment() -> [String: String] {
        var variables: [String: String] = [:]
        for entry in Linux.Process.environment() {
            guard let equals = entry.firstIndex(of: "=") else { continue }
            variables[String(entry[..<equals])] = String(entry[entry.index(after: equals)...])
        }
        return variables
    }

    private static func say(_ text: String, to descriptor: Int32) {
        var rest = Array((text.hasSuffix("\n") ? text : text + "\n").utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if count == 0 || (errno != EINTR && errno != EAGAIN) {
                return
            } else {
                // The descriptor is shared, and somebody may have made it non-blocking.
                var room = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                _ = poll(&room, 1, -1)
            }
        }
    }
}
